"""Evaluate a trained network on a list, or on a folder with one folder per class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from pplc_cli.base.errors import DataError
from pplc_cli.base.paddle import as_tensor, load_paddle
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.base.storage.locks import beside, claim
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample, read_class_folders, read_part
from pplc_cli.data.loader import Batch, Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.training.evaluation.metrics import Scores, summary
from pplc_cli.training.evaluation.report import write_report
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result of :func:`evaluate`.

    Attributes:
        source: the list or folder.
        metrics: see :func:`pplc_cli.training.evaluation.metrics.summary`, with ``source`` and ``network``.
        folder: of the report.
    """

    source: str
    metrics: dict[str, Any]
    folder: Path


class Batches(Protocol):
    """The part of a loader's interface that evaluation uses."""

    samples: list[Sample]
    classes: int

    def epoch(self) -> Iterator[Batch]:
        """All batches in order."""
        ...


def run_network(network: Any, loader: Batches, progress: Optional[ProgressCallback] = None) -> Scores:
    """Compute a network's probabilities on all batches of a loader; the network must be in evaluation mode."""
    import paddle

    # If the list is short and there are several processes, one of them may have no image.
    rows, labels = [np.empty((0, loader.classes), np.float32)], [np.empty(0, np.int64)]
    with paddle.no_grad():
        for batch in loader.epoch():
            logits = network(as_tensor(batch.images))
            rows.append(paddle.nn.functional.softmax(logits, axis=1).numpy())
            labels.append(batch.labels)
            if progress:
                progress(sum(map(len, rows)), len(loader.samples))
    return Scores(np.concatenate(rows), np.concatenate(labels))


def evaluate(
    run: RunFolder,
    config: Config,
    *,
    data: Optional[PathLike] = None,
    output: Optional[PathLike] = None,
    progress: Optional[ProgressCallback] = None,
) -> Evaluation:
    """Evaluate a run's best weights and write a report.

    The report: metrics.json, predictions.csv, confusion_matrix.csv and .png, and mistakes.png with the most confident
    wrong predictions, if there are any.

    Args:
        run: the run.
        config: its configuration; ``eval.split`` chooses the list; null: test, or val if there is no test list.
        data: use this folder with one folder per class, named like the classes, instead of a list.
        output: the report's folder; default ``eval_SPLIT`` in the run.
        progress: called with the number of images done and the total.

    Raises:
        PplcError: there are no weights or no list, or an image cannot be read.
    """
    load_paddle(config.train.threads)
    network, info = load_network(run.best)
    labels = info["labels"]
    if data is not None:
        source = user_path(data).name or "folder"
        if not user_path(data).is_dir():
            raise DataError(f"{data}: no such folder; expected a folder with one folder of images per class")
        samples = read_class_folders(user_path(data), labels)
        source_text = str(data)
    else:
        source, samples = _choose_list(config, labels)
        source_text = f"{config.data.dir} ({source} list)"
    pipeline = Pipeline(config.eval.transforms, training=False)
    loader = Loader(samples, pipeline, config.eval.batch_size, len(labels), workers=config.data.workers)
    scores = run_network(network, loader, progress)
    metrics = {"source": source_text, "network": info["network"], "epoch": info["epoch"], **summary(scores, labels)}
    folder = user_path(output) if output else run.folder / f"eval_{source}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with claim(folder, beside(folder), wait=True):  # so that the files of a report belong together
        write_report(folder, metrics, samples, scores, labels, config.eval.worst)
    return Evaluation(source_text, metrics, folder)


def _choose_list(config: Config, labels: list[str]) -> tuple[str, list[Sample]]:
    for part in [config.eval.split] if config.eval.split else ["test", "val"]:
        samples = read_part(config.data, part, labels)
        if samples is not None:
            return part, samples
    raise DataError(
        f"{config.data.dir}: has no {config.eval.split or 'test or val'} list; run pplc split, or give --data FOLDER"
    )
