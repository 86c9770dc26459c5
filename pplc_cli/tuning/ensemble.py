"""Make one model of the networks of all folds: the mean of their probabilities, or of their weights."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import DataError, ExportError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.progress import ProgressCallback
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.config.sections import Config
from pplc_cli.exporting.export import Settings, TrainedModel, known_formats, known_precisions, write_export
from pplc_cli.exporting.result import ExportResult
from pplc_cli.training.evaluation.evaluate import Evaluation, measure, save_evaluation, score_samples
from pplc_cli.training.runs.checkpoint import load_network, network_arrays
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.tuning.folds import FoldsResult, config_of_fold, read_folds

EXPORTED = "inference_model"


@dataclasses.dataclass(frozen=True)
class FoldsExport:
    """The result of :func:`export_folds`.

    Attributes:
        export: of the one model.
        members: number of networks whose probabilities it averages; 1 if their weights were averaged.
        out_of_fold: accuracy of the single networks on the images that they were not trained on.
        soup: accuracy of the averaged weights on the same images, of which most networks have seen each; None: an
            ensemble.
    """

    export: ExportResult
    members: int
    out_of_fold: float
    soup: Optional[float] = None


def export_folds(
    folder: PathLike,
    *,
    soup: bool = False,
    overrides: Optional[Mapping[str, Any]] = None,
    output: Optional[PathLike] = None,
    formats: Sequence[str] = ("paddle",),
    precisions: Sequence[str] = (),
    batch: Optional[int] = None,
    size: Union[tuple[int, int], str, None] = None,
    simplify: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> FoldsExport:
    """Export the networks of all folds as one model; scores are calibrated by the out-of-fold predictions.

    Args:
        folder: of :func:`pplc_cli.tuning.folds.train_folds`.
        soup: average the weights (Wortsman et al., 2022, arXiv:2203.05482) instead of the probabilities: the model is
            as fast as one network. Only folds that start from the same pretrained weights allow it.
        overrides: values of the configuration, by dotted key.
        output: the folder to write; default ``inference_model`` in ``folder``.
        formats, precisions, batch, size, simplify, note: as for :func:`pplc_cli.exporting.export.export`.

    Raises:
        TypeError: an argument has another type.
        ExportError: the averaged weights lose accuracy, or the export failed; nothing is written.
        PplcError: a fold is not finished.
    """
    expect_type("folder", folder, str, os.PathLike)
    expect_type("output", output, str, os.PathLike, type(None))
    expect_type("batch", batch, int, type(None))
    formats, precisions = known_formats(formats), known_precisions(precisions)
    folds = read_folds(folder)
    config = config_of_fold(folds.folder, 1, overrides)
    load_paddle(config.train.threads)
    network, info, digest = load_ensemble(folds, soup=soup)
    top1 = _check_soup(network, config, folds) if soup else None
    model = TrainedModel(network, info["network"], folds.labels, digest, folds.scores)
    target = user_path(output) if output else folds.folder / EXPORTED
    written = write_export(model, config, Settings(target, formats, precisions, batch, size, simplify), note)
    return FoldsExport(written, 1 if soup else len(folds.runs), folds.scores.top1, top1)


def load_ensemble(folds: FoldsResult, *, soup: bool = False) -> tuple[Any, dict[str, Any], str]:
    """Load the networks of all folds as one; Paddle must be loaded.

    Args:
        folds: the folds.
        soup: average the weights instead of the probabilities.

    Returns:
        The network in evaluation mode, ``model.json`` of the first fold, and a hash of all weights.
    """
    from pplc_cli.models.ensemble import Ensemble

    loaded = [load_network(run.best) for run in folds.runs]
    info = loaded[0][1]
    digest = hashlib.sha256(" ".join(one["sha256"]["model"] for _, one in loaded).encode()).hexdigest()
    networks = [network for network, _ in loaded]
    if not soup:
        whole = Ensemble(networks)
        whole.eval()
        return whole, info, digest
    mean: dict[str, Any] = {}
    for network in networks:
        for key, value in network_arrays(network).items():
            mean[key] = mean.get(key, 0.0) + value.astype(np.float64) / len(networks)
    for key, tensor in networks[0].state_dict().items():
        tensor.set_value(mean[key].astype(tensor.numpy().dtype))
    return networks[0], info, digest


def _check_soup(network: Any, config: Config, folds: FoldsResult) -> float:
    """Return the accuracy of averaged weights on all images.

    Most of the averaged networks were trained on each image, so that a good result proves little; but weights that do
    not belong together lose everything, and that shows.

    Raises:
        ExportError: it is below that of the single networks on images that they were not trained on.
    """
    scores, _ = score_samples(network, config, folds.samples, len(folds.labels))
    if scores.top1 < folds.scores.top1:
        raise ExportError(
            tr(
                "the averaged weights have {soup:.1%} on the images of the folds, where the single networks have "
                "{single:.1%} on those that they were not trained on; leave out --soup. Nothing was written.",
                soup=scores.top1,
                single=folds.scores.top1,
            )
        )
    return scores.top1


def evaluate_folds(
    folder: PathLike,
    *,
    soup: bool = False,
    overrides: Optional[Mapping[str, Any]] = None,
    data: Optional[PathLike] = None,
    output: Optional[PathLike] = None,
    progress: Optional[ProgressCallback] = None,
) -> Evaluation:
    """Evaluate the networks of all folds together on the test list, and write a report as ``evaluate`` does.

    Args:
        folder: of :func:`pplc_cli.tuning.folds.train_folds`.
        soup: average the weights instead of the probabilities.
        overrides: values of the configuration, by dotted key.
        data: a folder with one folder per class, instead of the test list.
        output: the report's folder; default ``eval_test`` in ``folder``.
        progress: called with the number of images done and the total.

    Raises:
        PplcError: there is no test list, or none of its images can be used.
    """
    folds = read_folds(folder)
    config = config_of_fold(folds.folder, 1, {"eval.split": "test", **(overrides or {})})
    if config.eval.split != "test" and data is None:
        raise DataError(tr("the networks of the folds were trained on this list; expected test, or --data FOLDER"))
    load_paddle(config.train.threads)
    network, info, _ = load_ensemble(folds, soup=soup)
    found = measure(folds.runs[0], config, data=data, progress=progress, model=(network, info))
    return save_evaluation(found, user_path(output) if output else None, folds.folder, config)


def folds_folder(folder: Path) -> Path:
    """The folder of the folds, given it or the folder of one of its runs."""
    return folder.parent if folder.name.startswith("fold-") and RunFolder(folder.parent).folds.exists() else folder
