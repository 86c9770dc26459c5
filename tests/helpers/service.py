"""``pplc serve`` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx


class Service:
    """A running server.

    Attributes:
        url: its address.
        process: its process.
        log: what it writes to standard error, a file.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, line + log.read_text("utf-8")
        self.url, self.process, self.log = found.group(), process, log

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.Client:
        """A client that knows the address and uses no proxy."""
        return httpx.Client(base_url=self.url, trust_env=False, **{"timeout": 60, **options})

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(folder: Path, *words: str, env: dict[str, str] | None = None, before: str = "") -> Iterator[Service]:
    """Run ``pplc serve`` in a folder on a free port until the block ends; its log may hold no traceback.

    Args:
        folder: where it runs and writes its log.
        words: arguments.
        env: variables of its environment.
        before: Python to run in its process first.
    """
    log = folder / f"serve {time.monotonic_ns()}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{before}\nfrom pplc_cli.cli.main import main\nmain()",
                "serve",
                *words,
                "--port",
                "0",
            ],
            cwd=folder,
            env={**os.environ, "PPLC_LANG": "en", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Service(process, log)
    finally:
        process.terminate()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
    assert "Traceback" not in log.read_text("utf-8")
