"""Where the threads of a team wait for each other."""

from __future__ import annotations

from pplc_cli.kernels.simd.vector import fetch_add, give_way, kernel, pause, read_shared


@kernel
def barrier(arrivals, threads):  # type: ignore[no-untyped-def]
    """Wait until all threads of the team have arrived."""
    if threads == 1:
        return
    arrived = fetch_add(arrivals, 1) + 1
    target = (arrived + threads - 1) // threads * threads
    turns = 0
    while read_shared(arrivals) < target:
        turns += 1
        if turns < 2000:
            pause()
        else:
            give_way()
