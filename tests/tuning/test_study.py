"""The studies of pplc tune: planned and sampled trials, kills, several processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pplc_cli.base.errors import PplcError, TrainError
from pplc_cli.tuning.study import OutOfTime, Phase, load_optuna, open_storage, sqlite_url

pytest.importorskip("optuna", reason="needs pplc[tune]")
FACTS = {"lists": "a", "space": "b"}
PLANNED = [{"kind": "a", "x": 0.5}, {"kind": "b", "x": 0.5}]


def phase(folder: Path, **options) -> Phase:
    return Phase(open_storage(sqlite_url(folder / "search.db")), "it", FACTS, options.pop("seed", 3), **options)


def value(trial) -> float:
    """A smooth function with its maximum at x = 0.3 and kind b."""
    kind, x = trial.suggest_categorical("kind", ["a", "b"]), trial.suggest_float("x", 0, 1)
    return 1 - (x - 0.3) ** 2 + (kind == "b")


def outcomes(found: Phase) -> list[tuple]:
    return [(trial.params["kind"], trial.params["x"], trial.value) for trial in found.trials()]


def test_planned_trials_come_first_and_the_sampler_learns(tmp_path):
    search = phase(tmp_path)
    assert search.run(value, PLANNED, most=40)
    rows = outcomes(search)
    assert [row[:2] for row in rows[:2]] == [("a", 0.5), ("b", 0.5)]
    assert len(rows) == 40
    # Random draws of 40 would come within 0.1 of 0.3 in half of the cases of each kind: 8 of the last 20 by chance.
    assert sum(kind == "b" and abs(x - 0.3) < 0.2 for kind, x, _ in rows[20:]) >= 12
    best = search.complete()[0]
    assert best.params["kind"] == "b"
    assert abs(best.params["x"] - 0.3) < 0.1


def test_a_search_that_is_interrupted_anywhere_is_the_same(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    whole = phase(tmp_path / "one")
    whole.run(value, PLANNED, most=12)
    draw = random.Random(5)

    def fragile(trial) -> float:
        result = value(trial)
        if draw.random() < 0.4:
            raise KeyboardInterrupt
        return result

    for _ in range(200):
        broken = phase(tmp_path / "other")
        try:
            assert broken.run(fragile, PLANNED, most=12)
            break
        except KeyboardInterrupt:
            continue
    assert outcomes(broken) == outcomes(whole)


def run_process(folder: Path, most: int, *, die_at: int = -1, pause: float = 0.0) -> subprocess.Popen[bytes]:
    """Start a process that works on the study; it kills itself in its ``die_at``-th trial."""
    code = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from pplc_cli.tuning.study import Phase, open_storage, sqlite_url\n"
        f"facts, planned = {json.dumps(FACTS)}, {json.dumps(PLANNED)}\n"
        "seen = []\n"
        "def value(trial):\n"
        "    kind, x = trial.suggest_categorical('kind', ['a', 'b']), trial.suggest_float('x', 0, 1)\n"
        "    seen.append(x)\n"
        f"    if len(seen) == {die_at}: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"    time.sleep({pause})\n"
        "    return 1 - (x - 0.3) ** 2 + (kind == 'b')\n"
        f"url = sqlite_url(Path({str(folder)!r}) / 'search.db')\n"
        f"Phase(open_storage(url), 'it', facts, 3).run(value, planned, most={most})\n"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_killed_process_loses_its_trial_alone(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    whole = phase(tmp_path / "one")
    whole.run(value, PLANNED, most=8)
    for die_at in (2, 1, 4):  # in a planned trial, in the next one at once, in a sampled one
        assert run_process(tmp_path / "other", 8, die_at=die_at).wait(60) == -9
    broken = phase(tmp_path / "other")
    assert broken.run(value, PLANNED, most=8)
    assert outcomes(broken) == outcomes(whole)


def test_two_processes_share_a_study(tmp_path):
    phase(tmp_path)  # makes the tables
    both = [run_process(tmp_path, 16, pause=0.1) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    found = phase(tmp_path)
    rows = outcomes(found)
    assert len(rows) == 16
    assert len({row[:2] for row in rows}) == 16, "no trial was done twice"
    for planned in PLANNED:
        assert sum(row[:2] == (planned["kind"], planned["x"]) for row in rows) == 1
    assert len({tuple(trial.user_attrs["worker"]) for trial in found.trials()}) == 2, "both worked"


def test_a_study_of_other_data_is_refused(tmp_path):
    phase(tmp_path)
    storage = open_storage(sqlite_url(tmp_path / "search.db"))
    with pytest.raises(TrainError, match=r"the study 'it' searches something else \(lists differ\)"):
        Phase(storage, "it", {**FACTS, "lists": "others"}, 3)


def test_time_ends_a_search_and_the_trial_counts_for_nothing(tmp_path):
    search = phase(tmp_path)

    def slow(trial) -> float:
        result = value(trial)
        if len(search.trials()) > 3:
            raise OutOfTime
        return result

    assert not search.run(slow, PLANNED, most=9)
    assert len(search.trials()) == 3
    assert not search.run(value, PLANNED, most=9, deadline=time.monotonic() - 1)
    assert len(search.trials()) == 3
    assert not search.run(value, PLANNED, most=9, deadline=time.monotonic() + 5, needed=lambda: 10)
    assert len(search.trials()) == 3
    assert search.run(value, PLANNED, most=9)
    assert len(search.trials()) == 9


def test_trials_below_the_median_stop_early(tmp_path):
    search = phase(tmp_path, pruner="median")
    pruned = load_optuna().TrialPruned

    def epochs(trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        for epoch in range(1, 5):
            trial.report(x * epoch, epoch)
            if trial.should_prune():
                raise pruned
        return x * 4

    search.run(epochs, [], most=20)
    stopped = [trial for trial in search.trials() if trial.value is None or len(trial.intermediate_values) < 4]
    assert 1 <= len(stopped) < 16
    assert len(search.trials()) == 20


def test_a_password_is_not_shown():
    with pytest.raises(PplcError) as found:
        open_storage("nonsense://me:secret@host/db")
    assert "secret" not in str(found.value) and "me:***@host" in str(found.value)


def test_a_storage_that_cannot_be_opened_is_one_clear_line(tmp_path):
    with pytest.raises(PplcError, match="the storage nonsense://x cannot be opened"):
        open_storage("nonsense://x")
    with pytest.raises(PplcError, match="cannot be opened"):
        open_storage(sqlite_url(tmp_path / "missing" / "search.db"))
