"""Measure on the validation images how far an exported network's answers may be trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample, read_part, spread
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.predict.confidence import FILE, KEY, calibrate, classify, distance_to, unit_length
from pplc_cli.predict.predictor import Predictor
from pplc_cli.training.evaluation.calibration import fit_temperature
from pplc_cli.training.evaluation.metrics import Scores, calibration_error

TRAINING = 2_000  # training images whose embeddings are kept, 5 MB for PP-LCNet
VALIDATION = 5_000  # images that are measured, at most


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How well the scores of an exported network say how often it is right.

    Attributes:
        temperature: divides the logits.
        images: validation images that it was fitted on.
        before, after: expected calibration error without and with it.
    """

    temperature: float
    images: int
    before: float
    after: float

    def facts(self) -> dict[str, Any]:
        """The part of ``pplc.json``."""
        error = {"before": round(self.before, 6), "after": round(self.after, 6)}
        return {KEY: {"temperature": self.temperature, "images": self.images, "calibration_error": error}}


def add_confidence(
    folder: Path, config: Config, labels: Sequence[str], graph: Optional[Graph], scores: Optional[Scores] = None
) -> Optional[Calibration]:
    """Write ``inference_confidence.safetensors``, see :mod:`pplc_cli.predict.confidence`.

    Args:
        folder: the exported folder.
        config: its lists are read, and its ``predict`` section has the threads.
        labels: class names.
        graph: the network, simplified; None, or without a linear layer: images are not compared with the training
            images.
        scores: probabilities that stand for the network's on its validation images, if it was trained on those; None:
            they are computed.

    Returns:
        None if there is no validation image that can be read; nothing is written then.
    """
    from safetensors.numpy import save

    validation = _samples(config, "val", labels, VALIDATION)
    linear = graph.classifier if graph else None
    predictor = _open(folder, config, features=linear is not None)
    arrays: dict[str, np.ndarray] = {}
    if linear is not None and predictor is not None:
        embeddings, right = _embeddings(predictor, validation)
        training, _ = _embeddings(predictor, _samples(config, "train", labels, TRAINING))
        weight = linear.weights["weight"]
        bias = linear.weights.get("bias", np.zeros(weight.shape[1], np.float32))
        probabilities = classify(embeddings, weight, bias) if len(embeddings) else embeddings
        if len(training) and len(embeddings):
            stored = unit_length(training).astype(np.float16)
            distances = np.sort(distance_to(embeddings, stored.astype(np.float32)))
            arrays = {"weight": weight, "bias": bias, "training": stored, "distances": distances}
    else:
        predictor = _open(folder, config, features=False)
        assert predictor is not None
        probabilities, right = _probabilities(predictor, validation)
    if scores is None and not len(right):
        return None
    scores = scores or Scores(probabilities, right)
    probabilities, right = scores.probabilities, scores.labels
    temperature = fit_temperature(scores)
    calibrated = calibrate(probabilities, temperature)
    misses = np.sort(1 - calibrated[np.arange(len(right)), right]).astype(np.float32)
    data = save({"misses": misses, **{name: np.ascontiguousarray(value) for name, value in arrays.items()}})
    (folder / FILE).write_bytes(data)
    return Calibration(temperature, len(right), calibration_error(scores), calibration_error(Scores(calibrated, right)))


def _open(folder: Path, config: Config, *, features: bool) -> Optional[Predictor]:
    """Open the folder with the default engine; None if no engine that is installed gives embeddings."""
    try:
        return Predictor(folder, threads=config.predict.threads, features=features, calibrated=False)
    except PredictError:
        if features:
            return None
        raise


def _samples(config: Config, part: str, labels: Sequence[str], limit: int) -> list[Sample]:
    try:
        return spread(read_part(config.data, part, labels) or [], limit)
    except PplcError:  # the lists were moved; an export must not fail for it
        return []


def _embeddings(predictor: Predictor, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, float32 (N, features), and classes, int64 (N,), of the images that can be read."""
    found = predictor.predict((sample.path for sample in samples), many=True)
    rows = [(one.embedding, sample.label) for one, sample in zip(found, samples) if one.embedding is not None]
    return _stacked(rows)


def _probabilities(predictor: Predictor, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, float32 (N, classes), and classes, int64 (N,), of the images that can be read."""
    number = {label: place for place, label in enumerate(predictor.labels)}
    rows = []
    found = predictor.predict((sample.path for sample in samples), many=True, top_k=len(number))
    for one, sample in zip(found, samples):
        if one.error is None:
            row = np.zeros(len(number), np.float32)
            row[[number[label] for label, _ in one.top]] = [score for _, score in one.top]
            rows.append((row, sample.label))
    return _stacked(rows)


def _stacked(rows: Sequence[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    if not rows:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    return np.stack([row for row, _ in rows]), np.array([label for _, label in rows], np.int64)
