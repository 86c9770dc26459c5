"""Cross-validation: train once for each fold of the images, and predict each image by a network that never saw it."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import re
import shutil
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import CheckpointError, DataError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, atomic_file, read_failure, user_path, write_json, write_text
from pplc_cli.base.storage.locks import claim
from pplc_cli.config.load import as_config
from pplc_cli.config.sections import Config
from pplc_cli.data.image_files import read_bytes
from pplc_cli.data.lists import Sample, read_labels, require_part
from pplc_cli.data.lists.assign import CheckedImage, group_images
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.settings import DataConfig
from pplc_cli.training.evaluation.evaluate import score_samples
from pplc_cli.training.evaluation.metrics import Scores, summary
from pplc_cli.training.progress import NotedOnce, Reporter
from pplc_cli.training.runs.checkpoint import load_info, load_network
from pplc_cli.training.runs.run import Run
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.train import remember, train

PREDICTIONS = "out_of_fold.npy"
LEAST, MOST = 2, 20


@dataclasses.dataclass(frozen=True)
class FoldsResult:
    """The result of :func:`train_folds`.

    Attributes:
        folder: holds ``fold-1``, ``fold-2``, ... with their runs, ``out_of_fold.csv`` and ``folds.json``.
        runs: the runs.
        labels: class names.
        top1: accuracy of each fold on the images that it was not trained on.
        scores: the predictions of all images, each by the network that was not trained on it.
        samples: the images of the scores.
        held_out_of: the number of each image's fold, from 1.
    """

    folder: Path
    runs: list[Run]
    labels: list[str]
    top1: list[float]
    scores: Scores
    samples: list[Sample]
    held_out_of: list[int]

    @property
    def mean(self) -> float:
        """Mean accuracy of the folds."""
        return statistics.mean(self.top1)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean. The folds share training images, so that it is rather too small."""
        return statistics.stdev(self.top1) / math.sqrt(len(self.top1))

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures of all images together, as ``pplc eval`` gives them, by class too."""
        return summary(self.scores, self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "folder": self.folder.as_posix(),
            "folds": self.top1,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "out_of_fold": self.metrics,
        }


def train_folds(
    config: Union[Config, Mapping[str, Any], PathLike],
    folds: int,
    *,
    resume: bool = False,
    force: bool = False,
    reporter: Optional[Reporter] = None,
    cache: Optional[ImageCache] = None,
) -> FoldsResult:
    """Divide the training and validation list into folds, and train a network for each on all others.

    Folds are stratified by class, and images with equal content or the same group (``split.group``) stay together.
    The test list is not used. After a stop, ``resume`` goes on with the fold that was stopped, to the bit.

    Args:
        config: of the runs; they go to ``fold-1``, ``fold-2``, ... in its ``output``.
        folds: their number, from 2 to 20.
        resume: continue; finished folds stay.
        force: replace what is there.
        reporter: receives the progress.
        cache: as for ``train``.

    Raises:
        TypeError: an argument has another type.
        DataError: a class has too few images.
        PplcError: for anything a user can mend.
    """
    config = as_config(config)
    expect_type("folds", folds, int)
    expect_type("reporter", reporter, Reporter, type(None))
    if not LEAST <= folds <= MOST:
        raise TrainError(tr("--folds: expected {least} to {most}, got {folds}", least=LEAST, most=MOST, folds=folds))
    folder = user_path(config.output)
    if RunFolder(folder).exists():
        raise CheckpointError(
            tr("{folder} already holds a run without folds: choose another folder with --output", folder=folder)
        )
    labels = read_labels(config.data)
    samples = [*require_part(config.data, "train", labels), *require_part(config.data, "val", labels)]
    parts = assign_folds(samples, labels, folds, config.split.group, config.train.seed)
    plan = {"folds": folds, "fingerprint": _fingerprint(labels, samples, parts)}
    _check_plan(folder, plan, resume, force)
    folder.mkdir(parents=True, exist_ok=True)
    with reporter or Reporter() as entered, claim(folder, folder / ".lock", note=entered.note):
        told = NotedOnce(entered)
        _write_lists(_lists(folder, plan), labels, samples, parts, config.data)

        def begin() -> None:
            """Replace what was there; with ``force`` once the first fold trains, and nothing can be wrong with it."""
            if force:
                _remove_old(folder, plan)
            write_json(RunFolder(folder).folds, plan)

        if not force:
            begin()
        if cache is None:
            remember(Run(folder / "fold-1"), told.note)
            cache = ImageCache(config.data.cache_mb)
        for number in range(1, folds + 1):
            told.note(tr("fold {number} of {folds}", number=number, folds=folds))
            if number > 1 and config.train.batch_size == "auto":  # all folds have the batch size of the first
                batch = Run(folder / "fold-1").config.train.images_per_step
                config = dataclasses.replace(config, train=config.train.with_batch_size(batch))
            begun = RunFolder(folder / f"fold-{number}").exists() and not force
            watching = _Begun(told, begin) if force and number == 1 else told
            held = [samples[i] for i in np.flatnonzero(parts == number - 1)]
            _train_fold(_of_fold(config, folder, number, plan), held, begun, watching, cache)
        result = read_folds(folder)
        _write_predictions(result)
        write_json(RunFolder(folder).folds, {**plan, "result": result.to_dict()})
    return result


def assign_folds(
    samples: Sequence[Sample], labels: Sequence[str], folds: int, group: Optional[str], seed: int
) -> np.ndarray:
    """Return the fold of each image, int64 (N,), from 0; stratified, groups together.

    Raises:
        DataError: a class has fewer groups than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    images = [  # the part, which plays no role here, is the place on the list
        CheckedImage(sample.name, sample.label, hashlib.sha256(read_bytes(sample.path)).hexdigest(), str(index))
        for index, sample in enumerate(samples)
    ]
    groups = np.zeros(len(samples), np.int64)
    for number, members in enumerate(group_images(images, re.compile(group) if group else None)):
        groups[[int(image.part) for image in members]] = number
    classes = np.array([sample.label for sample in samples], np.int64)
    for label, name in enumerate(labels):
        count = len(np.unique(groups[classes == label]))
        if count < folds:
            raise DataError(
                tr(
                    "class {label!r} has {count} images, or groups of them, on the training and validation list; "
                    "{folds} folds need at least {folds}",
                    label=name,
                    count=count,
                    folds=folds,
                )
            )
    chosen = np.zeros(len(samples), np.int64)
    divider = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with few groups was counted above
        for number, (_, held) in enumerate(divider.split(np.zeros(len(samples)), classes, groups)):
            chosen[held] = number
    return chosen


def _fingerprint(labels: Sequence[str], samples: Sequence[Sample], parts: np.ndarray) -> str:
    rows = [[sample.name, sample.label, int(part)] for sample, part in zip(samples, parts)]
    return hashlib.sha256(json.dumps([list(labels), rows]).encode("utf-8", "surrogatepass")).hexdigest()


def _check_plan(folder: Path, plan: dict[str, Any], resume: bool, force: bool) -> None:
    """Refuse a folder with folds that are not to be continued or replaced."""
    if not RunFolder(folder).folds.exists() or force:
        return
    if not resume:
        raise CheckpointError(
            tr(
                "{folder} already holds a run: continue it with --resume, replace it with --force, or choose another "
                "folder with --output",
                folder=folder,
            )
        )
    found = read_plan(folder)
    if any(found.get(key) != value for key, value in plan.items()):
        raise CheckpointError(
            tr(
                "{folder} cannot be resumed: it has {count} folds of other lists; start anew with --force or another "
                "--output",
                folder=folder,
                count=found.get("folds"),
            )
        )


def read_plan(folder: Path) -> dict[str, Any]:
    """Read ``folds.json``.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = RunFolder(folder).folds
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(plan["fingerprint"], str) and isinstance(plan["folds"], int) and LEAST <= plan["folds"] <= MOST:
            return dict(plan)
    except FileNotFoundError:
        raise CheckpointError(
            tr("{folder}: no folds; train them first: pplc train CONFIG --folds 5", folder=folder)
        ) from None
    except OSError as error:
        raise CheckpointError(read_failure(path, error)) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise CheckpointError(tr("{path} is damaged; train again with --force", path=path))


def _remove_old(folder: Path, plan: Mapping[str, Any]) -> None:
    """Remove what belongs to older folds: all but the lists and the first run of the new ones."""
    (folder / "fold-1" / PREDICTIONS).unlink(missing_ok=True)
    reports = [metrics.parent for metrics in folder.glob("eval_*/metrics.json")]
    for old in (
        *(path for path in folder.glob("fold-*") if path.name != "fold-1"),
        RunFolder(folder).exported,
        *reports,
    ):
        shutil.rmtree(old, ignore_errors=True)
    for old in (folder / "lists").iterdir():
        if old != _lists(folder, plan):
            shutil.rmtree(old, ignore_errors=True)


class _Begun(NotedOnce):
    """Does something at the first step of a training."""

    def __init__(self, reporter: Reporter, action: Callable[[], None]) -> None:
        super().__init__(reporter)
        self._action: Optional[Callable[[], None]] = action

    def step(self, record: dict[str, Any]) -> None:
        if self._action is not None:
            self._action()
            self._action = None
        super().step(record)


def _write_lists(
    folder: Path, labels: Sequence[str], samples: Sequence[Sample], parts: np.ndarray, data: DataConfig
) -> None:
    """Write the lists of all folds as tables with the columns that the configuration names."""
    folder.mkdir(parents=True, exist_ok=True)
    header = [data.path_column or "path", data.label_column or "label"]
    for number in range(parts.max() + 1):
        for part, inside in (("train", parts != number), ("val", parts == number)):
            rows = ([samples[i].name, labels[samples[i].label]] for i in np.flatnonzero(inside))
            _write_table(folder / f"fold-{number + 1}-{part}.csv", [header, *rows])


def _write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _lists(folder: Path, plan: Mapping[str, Any]) -> Path:
    """The lists of a division; others beside them may belong to the folds that are still there."""
    return folder / "lists" / str(plan["fingerprint"])[:12]


def _of_fold(config: Config, folder: Path, number: int, plan: Mapping[str, Any]) -> Config:
    """The configuration of a fold, numbered from 1."""
    train_list, val_list = (str(_lists(folder, plan) / f"fold-{number}-{part}.csv") for part in ("train", "val"))
    data = dataclasses.replace(config.data, train_list=train_list, val_list=val_list)
    return dataclasses.replace(config, data=data, output=str(folder / f"fold-{number}"))


def config_of_fold(folder: Path, number: int, overrides: Optional[Mapping[str, Any]] = None) -> Config:
    """Read the configuration of a fold, numbered from 1, wherever the folder of the folds is now."""
    config = RunFolder(folder / f"fold-{number}").load_config(dict(overrides or {}))
    return _of_fold(config, folder, number, read_plan(folder))


def _train_fold(config: Config, held: list[Sample], begun: bool, reporter: Reporter, cache: ImageCache) -> None:
    """Train what is missing of a fold, and keep its predictions of the images held out."""
    run = RunFolder(user_path(config.output))
    predictions = run.folder / PREDICTIONS
    if begun and run.last.exists() and load_info(run.last, "model")["epoch"] < config.train.epochs:
        predictions.unlink(missing_ok=True)  # of weights that will change
    train(config, resume=begun, force=not begun, reporter=reporter, cache=cache)
    if not predictions.exists():
        network, info = load_network(run.best)
        scores, reasons = score_samples(network, config, held, len(info["labels"]))
        if reasons:
            raise DataError(next(iter(reasons.values())))
        with atomic_file(predictions) as temporary, temporary.open("wb") as file:
            np.save(file, scores.probabilities)


def read_folds(folder: PathLike) -> FoldsResult:
    """Read finished folds.

    Raises:
        CheckpointError: there are none, one is not finished, or a file is damaged.
    """
    folder = user_path(folder)
    runs = [Run(folder / f"fold-{number}") for number in range(1, read_plan(folder)["folds"] + 1)]
    samples, held_out_of, rows, top1 = list[Sample](), list[int](), list[np.ndarray](), list[float]()
    labels: list[str] = []
    for number, run in enumerate(runs, 1):
        path = run.folder / PREDICTIONS
        if not path.exists():
            raise CheckpointError(
                tr("{folder}: the fold is not finished; repeat pplc train with --folds and --resume", folder=run.folder)
            )
        labels = run.labels
        held = require_part(config_of_fold(folder, number).data, "val", labels)
        try:
            probabilities = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(tr("{path} is damaged: {error}", path=path, error=error)) from None
        if probabilities.shape != (len(held), len(labels)):
            raise CheckpointError(tr("{path} does not belong to the lists of the fold", path=path))
        samples += held
        held_out_of += [number] * len(held)
        rows.append(probabilities)
        top1.append(Scores(probabilities, np.array([sample.label for sample in held], np.int64)).top1)
    classes = np.array([sample.label for sample in samples], np.int64)
    return FoldsResult(folder, runs, labels, top1, Scores(np.concatenate(rows), classes), samples, held_out_of)


def _write_predictions(result: FoldsResult) -> None:
    """Write ``out_of_fold.csv``: image, its fold, its class, the predicted one, and the probability of each class."""
    rows: list[list[Any]] = [["path", "fold", "label", "predicted", *result.labels]]
    for sample, fold, row in zip(result.samples, result.held_out_of, result.scores.probabilities):
        names = result.labels[sample.label], result.labels[int(row.argmax())]
        rows.append([sample.name, fold, *names, *(f"{value:.6g}" for value in row)])
    _write_table(result.folder / "out_of_fold.csv", rows)
