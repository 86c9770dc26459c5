"""How far an answer may be trusted: calibrated scores, label sets, and images unlike all training images.

``pplc export`` measures all of it on the validation images and stores it beside the network: the temperature in
``pplc.json``, the arrays in ``inference_confidence.safetensors``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Optional

import numpy as np

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.bounded import read_bounded
from pplc_cli.predict.records import LARGEST, read_sidecar

FILE = "inference_confidence.safetensors"
KEY = "confidence"  # in pplc.json
UNKNOWN = "unknown"  # the label of an image unlike the training images
PASSED = 0.95  # share of the validation images that must not be called unknown
NEIGHBOURS = 5  # training images whose mean similarity counts; 1 and 10 are about as good (docs/trust.md)
_LEAST = 1e-12  # probability whose logarithm is still taken


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits by a temperature (Guo et al., 2017, arXiv:1706.04599); the order of the classes is kept.

    Args:
        probabilities: (N, classes).
        temperature: above 1 makes them less sure.

    Returns:
        float32 (N, classes).
    """
    return softmax(logits_of(probabilities) / temperature)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits, float64 (N, classes), whose softmax is these probabilities, (N, classes); none of them is infinite."""
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (N, classes), of logits (N, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def classify(embeddings: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (N, classes), that a linear layer gives for embeddings, (N, features).

    Args:
        embeddings: float32.
        weight: (features, classes).
        bias: (classes,).
    """
    return softmax(embeddings.astype(np.float64) @ weight.astype(np.float64) + bias)


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Scale rows, (N, features), to length 1; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def quantile(values: np.ndarray, share: float) -> float:
    """The smallest value that at least ``share`` of new values do not exceed (split conformal prediction).

    Vovk et al., 2005; exact for any distribution if the new values are drawn like these.

    Args:
        values: sorted ascending, (N,).
        share: 0 to 1.

    Returns:
        One of the values; infinity if there are too few for this share.
    """
    rank = math.ceil((len(values) + 1) * share - 1e-9)
    return float(values[max(rank, 1) - 1]) if rank <= len(values) else math.inf


@dataclasses.dataclass(frozen=True)
class Features:
    """What embeddings are compared with.

    Attributes:
        weight: of the classifier, float32 (features, classes).
        bias: of the classifier, float32 (classes,).
        training: embeddings of training images, of length 1, float32 (M, features).
        distances: of the validation images, sorted ascending, float32 (N,); see :meth:`distance`.
    """

    weight: np.ndarray
    bias: np.ndarray
    training: np.ndarray
    distances: np.ndarray

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """The network's answer, float32 (N, classes), for embeddings (N, features)."""
        return classify(embeddings, self.weight, self.bias)

    def distance(self, embeddings: np.ndarray) -> np.ndarray:
        """One minus the mean cosine similarity with the nearest training images: float32 (N,), 0 to 2.

        Sun et al., 2022, arXiv:2204.06507, use the k-th neighbour alone.
        """
        return distance_to(embeddings, self.training)

    def unknown(self, distances: np.ndarray) -> np.ndarray:
        """Whether images are unlike the training images, bool (N,)."""
        return distances > self._farthest

    @functools.cached_property
    def _farthest(self) -> float:
        return quantile(self.distances, PASSED)


def distance_to(embeddings: np.ndarray, training: np.ndarray) -> np.ndarray:
    """See :meth:`Features.distance`; ``training`` has length 1."""
    similar = unit_length(embeddings) @ training.T
    count = min(NEIGHBOURS, similar.shape[1])
    nearest = np.partition(similar, -count, axis=1)[:, -count:]
    distances: np.ndarray = (1 - nearest.mean(axis=1)).astype(np.float32)
    return distances


@dataclasses.dataclass(frozen=True)
class Confidence:
    """What the validation images say about a network's answers.

    Attributes:
        temperature: divides the logits.
        misses: one minus the calibrated probability of the right class, of the validation images, sorted ascending,
            float32 (N,).
        features: None for networks whose last layer is not linear.
    """

    temperature: float
    misses: np.ndarray
    features: Optional[Features]

    def label_sets(self, calibrated: np.ndarray, coverage: float) -> list[list[int]]:
        """The classes that may be the right one, the most probable first; always at least that one.

        All classes whose probability is high enough (LAC: Sadinle et al., 2019, arXiv:1609.00451).

        Args:
            calibrated: probabilities, (N, classes).
            coverage: the share of images whose right class shall be in the set.
        """
        least = 1 - quantile(self.misses, coverage)
        order = np.argsort(-calibrated, axis=1, kind="stable")
        counts = np.maximum((calibrated >= least - 1e-7).sum(axis=1), 1)
        return [row[:count].tolist() for row, count in zip(order, counts)]


def read_temperature(folder: Path) -> Optional[float]:
    """The temperature of an exported folder; None if it was never measured.

    Raises:
        PredictError: ``pplc.json`` is damaged.
    """
    facts = read_sidecar(folder).get(KEY)
    if facts is None:
        return None
    temperature = facts.get("temperature") if isinstance(facts, dict) else None
    if not isinstance(temperature, (int, float)) or not 0 < temperature < math.inf:
        raise PredictError(
            tr(
                "{file}: is damaged: expected a positive temperature, got {value!r}; run pplc export again",
                file=folder / "pplc.json",
                value=temperature,
            )
        )
    return float(temperature)


def read_confidence(folder: Path, classes: int) -> Confidence:
    """Read all that ``pplc export`` measured on the validation images.

    Args:
        folder: the exported folder.
        classes: number of its labels.

    Raises:
        PredictError: the folder has none of it, or it is damaged.
    """
    temperature = read_temperature(folder)
    file = folder / FILE
    if temperature is None or not file.is_file():
        raise PredictError(
            tr(
                "{folder}: nothing was measured on validation images, which unknown images and label sets need; run "
                "pplc export again, where the lists of the data set can be read",
                folder=folder,
            )
        )
    arrays = _read_arrays(file)
    if not _fit(arrays, classes):
        raise PredictError(tr("{file}: is damaged: expected other arrays; run pplc export again", file=file))
    features = None
    if "training" in arrays:
        features = Features(
            arrays["weight"], arrays["bias"], arrays["training"].astype(np.float32), arrays["distances"]
        )
    return Confidence(temperature, arrays["misses"], features)


def _read_arrays(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(read_bounded(file, LARGEST))
    except OSError as error:
        raise PredictError(tr("{file}: cannot be read: {reason}", file=file, reason=error.strerror)) from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PredictError(
            tr("{file}: is damaged: {kind}; run pplc export again", file=file, kind=type(error).__name__)
        ) from None


def _fit(arrays: dict[str, np.ndarray], classes: int) -> bool:
    """Whether the arrays of a file fit each other."""
    shapes = {name: array.shape for name, array in arrays.items()}
    width = shapes.get("weight", (0,))[0]
    wanted = {"misses": (None,), "weight": (width, classes), "bias": (classes,), "training": (None, width),
              "distances": (None,)}  # fmt: skip
    if shapes.keys() not in ({"misses"}, wanted.keys()):
        return False
    return all(
        len(shape) == len(wanted[name])
        and all(side in (None, shape[n]) and shape[n] for n, side in enumerate(wanted[name]))
        for name, shape in shapes.items()
    )
