"""Functions timed in turns: which runs are counted, and in which order."""

from __future__ import annotations

from pplc_cli.base.timing import time_in_turns, time_runs


def test_turns_alternate_after_the_warm_up():
    calls: list[str] = []
    times = time_in_turns(
        [lambda: calls.append("A"), lambda: calls.append("B")], rounds=3, seconds=0.0, at_least=2, warmup=1
    )
    assert "".join(calls) == "AB" + "AABB" * 3
    assert [len(mine) for mine in times] == [6, 6] and all(second >= 0 for mine in times for second in mine)


def test_at_least_as_many_runs_as_asked_for():
    assert len(time_runs(lambda: None, 0.0, at_least=5)) == 5
    assert len(time_runs(lambda: None, 0.05)) > 1
