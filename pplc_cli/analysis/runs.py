"""The runs below a folder, and whether one of two is better than by chance."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import CheckpointError, DataError, PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.progress import ProgressCallback, no_progress
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.data.lists import Sample, read_part
from pplc_cli.training.evaluation.evaluate import score_samples
from pplc_cli.training.evaluation.metrics import Scores
from pplc_cli.training.runs.checkpoint import load_info, load_network
from pplc_cli.training.runs.run import Run

DEEPEST = 4  # levels of folders that are searched for runs
SORTS = ("date", "val", "test", "network", "time", "size")
_PLACES = ("output", "data.dir", "data.lists")  # where things lie, which is no difference of the recipe


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """A run in one line.

    Attributes:
        folder: of the run.
        network: its name.
        val_top1: best share of right answers on the validation list; None for runs of older versions.
        test_top1: the same on the test list, if ``pplc eval`` has measured it.
        epochs: done, and planned.
        data: first eight digits of the hash of classes and lists: runs with the same one were trained on the same data.
        seconds: of all epochs.
        megabytes: of the weights.
        date: when the best weights were written.
        settings: the whole configuration by dotted key.
    """

    folder: Path
    network: str
    val_top1: Optional[float]
    test_top1: Optional[float]
    epochs: tuple[int, int]
    data: str
    seconds: float
    megabytes: float
    date: datetime
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for JSON."""
        return {**dataclasses.asdict(self), "folder": str(self.folder), "date": self.date.isoformat(timespec="seconds")}


@dataclasses.dataclass(frozen=True)
class RunList:
    """The runs below a folder.

    Attributes:
        runs: in the order asked for.
        unreadable: folders of runs that are damaged, and why.
    """

    runs: list[RunSummary]
    unreadable: list[tuple[Path, str]]

    def differences(self) -> dict[Path, dict[str, Any]]:
        """By run, the settings that are not the same in all of them."""
        everywhere = _differing([run.settings for run in self.runs])
        return {run.folder: {key: run.settings.get(key) for key in everywhere} for run in self.runs}


def list_runs(
    folder: PathLike, *, sort: str = "date", network: Optional[str] = None, data: Optional[str] = None
) -> RunList:
    """Find the runs below a folder.

    Args:
        folder: searched to a depth of :data:`DEEPEST`.
        sort: one of :data:`SORTS`; the newest, most accurate, shortest or smallest first.
        network: only runs whose network's name contains this text, in any case.
        data: only runs on the data whose hash begins like this.

    Raises:
        DataError: there is no such folder, or no run below it.
    """
    root = user_path(folder)
    if not root.is_dir():
        raise DataError(tr("{folder}: no such folder; expected one with trained runs", folder=root))
    found: list[RunSummary] = []
    unreadable: list[tuple[Path, str]] = []
    for place in _run_folders(root):
        try:
            found.append(_summary(Run(place)))
        except (PplcError, OSError) as error:
            unreadable.append((place, str(error)))
    if not found and not unreadable:
        raise DataError(tr("{folder}: there is no trained run in it; train one with pplc train", folder=root))
    wanted = [
        run
        for run in found
        if (network or "").lower() in run.network.lower() and run.data.startswith((data or "").lower())
    ]
    return RunList(sorted(wanted, key=lambda run: _sort_key(run, sort)), unreadable)


def _run_folders(root: Path) -> list[Path]:
    """Folders with a configuration and weights; runs within runs (teachers, folds) too."""
    found = []
    for place, folders, files in os.walk(root):
        here = Path(place)
        if "config.yaml" in files and {"best_model", "last"} & set(folders):
            found.append(here)
        depth = len(here.relative_to(root).parts)
        inner = {"best_model", "last", "inference_model"}
        folders[:] = sorted(name for name in folders if depth < DEEPEST and name not in inner)
    return sorted(found)


def _summary(run: Run) -> RunSummary:
    best = load_info(run.best, "model")
    last = load_info(run.last, "model") if run.last.is_dir() else {}
    config = run.config
    weights = run.best / "model.safetensors"
    test = run.metrics.get("test", {}).get("top1")
    return RunSummary(
        folder=run.folder,
        network=str(best.get("network", config.model.name)),
        val_top1=_share(best.get("val_top1")),
        test_top1=_share(test),
        epochs=(int(last.get("epoch", best.get("epoch", 0))), config.train.epochs),
        data=str(last.get("fingerprint", ""))[:8],
        seconds=float(sum(record.get("seconds", 0) for record in run.history)),
        megabytes=weights.stat().st_size / 1e6,
        date=datetime.fromtimestamp(weights.stat().st_mtime).astimezone(),
        settings=flatten(config.to_dict()),
    )


def _share(value: Any) -> Optional[float]:
    return float(value) if isinstance(value, (int, float)) else None


def _sort_key(run: RunSummary, sort: str) -> Any:
    if sort == "date":
        return -run.date.timestamp()
    if sort in ("val", "test"):
        top1 = run.val_top1 if sort == "val" else run.test_top1
        return -(top1 if top1 is not None else -1)
    return {"network": run.network, "time": run.seconds, "size": run.megabytes}[sort]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not the same everywhere, without the places of files."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [k for k in keys if k not in _PLACES and any(each.get(k) != settings[0].get(k) for each in settings)]


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """An image on which only one of two runs is right.

    Attributes:
        name: of the image.
        label: the true class.
        answers: of the two runs.
    """

    name: str
    label: str
    answers: tuple[str, str]


@dataclasses.dataclass(frozen=True)
class RunComparison:
    """How two runs differ.

    Attributes:
        runs: the two.
        settings: by dotted key, the two values that differ.
        same_data: whether both were trained on the same classes and lists.
        part: list on which they were compared: test, or val if there is no test list; "" if they were not.
        images: number of images on it.
        top1: shares of right answers.
        only: number of images on which only the first, and only the second, is right.
        p_value: probability of a difference at least as large if both are equally good (McNemar's exact test).
        disagreements: the images of ``only``.
    """

    runs: tuple[RunSummary, RunSummary]
    settings: dict[str, tuple[Any, Any]]
    same_data: bool
    part: str = ""
    images: int = 0
    top1: tuple[float, float] = (0.0, 0.0)
    only: tuple[int, int] = (0, 0)
    p_value: float = 1.0
    disagreements: list[Disagreement] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for JSON."""
        return {**dataclasses.asdict(self), "runs": [run.to_dict() for run in self.runs]}


def compare_runs(first: PathLike, second: PathLike, *, progress: ProgressCallback = no_progress) -> RunComparison:
    """Compare two runs on the same images.

    Runs that were trained on other lists are told apart, but not compared: the images that test one may have trained
    the other.

    Args:
        first, second: folders of the runs.
        progress: called with the number of images done, of both runs together, and the total.

    Raises:
        PplcError: there is no such run, or its lists cannot be read.
    """
    runs = [Run(user_path(folder)) for folder in (first, second)]
    for run in runs:
        if not run.exists():
            raise CheckpointError(
                tr("{folder}: no trained run (expected best_model/ and config.yaml in it)", folder=run.folder)
            )
    summaries = (_summary(runs[0]), _summary(runs[1]))
    keys = _differing([summary.settings for summary in summaries])
    settings = {key: (summaries[0].settings.get(key), summaries[1].settings.get(key)) for key in keys}
    same = bool(summaries[0].data) and summaries[0].data == summaries[1].data
    if not same:
        return RunComparison(summaries, settings, same)
    labels = runs[0].labels
    part, samples = _measured_list(runs[0], labels)
    found: list[Scores] = []
    unusable: set[int] = set()
    load_paddle(runs[0].config.train.threads)
    for number, run in enumerate(runs):
        network, _ = load_network(run.best)
        shifted = _shifted(progress, number * len(samples), 2 * len(samples))
        scores, reasons = score_samples(network, run.config, samples, len(labels), shifted)
        found.append(scores)
        unusable |= reasons.keys()
    usable = [sample for number, sample in enumerate(samples) if number not in unusable]
    if not usable:
        raise DataError(tr("{folder}: none of the images of the {part} list can be read", folder=first, part=part))
    answers = [scores.probabilities.argmax(1) for scores in found]
    right = [answer == scores.labels for answer, scores in zip(answers, found)]
    differing = np.flatnonzero(right[0] != right[1])
    only = (int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    return RunComparison(
        summaries,
        settings,
        same,
        part=part,
        images=len(usable),
        top1=(float(right[0].mean()), float(right[1].mean())),
        only=only,
        p_value=mcnemar(*only),
        disagreements=[
            Disagreement(
                usable[i].name, labels[usable[i].label], (labels[answers[0][i]], labels[answers[1][i]])
            )
            for i in differing
        ],
    )  # fmt: skip


def _shifted(progress: ProgressCallback, before: int, total: int) -> ProgressCallback:
    """A callback for one part of the work."""
    return lambda done, _: progress(before + done, total)


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test: two-sided binomial, of the images on which only one of two is right.

    McNemar, 1947, https://doi.org/10.1007/BF02295996.
    """
    from scipy.stats import binomtest

    images = only_first + only_second
    return float(binomtest(only_first, images, 0.5).pvalue) if images else 1.0


def _measured_list(run: Run, labels: list[str]) -> tuple[str, list[Sample]]:
    for part in ("test", "val"):
        samples = read_part(run.config.data, part, labels)
        if samples:
            return part, samples
    raise DataError(tr("{folder}: its test and validation lists have no images", folder=run.folder))
