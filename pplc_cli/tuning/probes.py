"""The cheapest judgement of a network: a linear classifier on its pretrained features, by cross-validation."""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.static import save_graph
from pplc_cli.models.weights.pretrained import has_weights, load_pretrained
from pplc_cli.predict.engines.open import open_engine

BATCH = 16
RUNS, WARM_UP = 30, 5  # of one image, whose median is the latency


@dataclasses.dataclass(frozen=True)
class Probed:
    """A network at an image size.

    Attributes:
        accuracy: of the linear classifier, on images of other folds.
        ms: time for one image on this machine, without decoding.
    """

    accuracy: float
    ms: float


def probe(
    config: Config,
    samples: Sequence[Sample],
    parts: np.ndarray,
    classes: int,
    cache: ImageCache,
    check: Callable[[], None],
) -> Probed:
    """Measure the network and image size of a configuration.

    Args:
        config: the configuration.
        samples: training and validation images.
        parts: the fold of each, from 0.
        classes: number of classes.
        cache: of the decoded images.
        check: called after each batch; may raise an error to stop.

    Raises:
        PplcError: the network has no pretrained weights, or cannot be divided into features and classifier.
    """
    spec = find_network(config.model.name)
    if not has_weights(spec, config.model.pretrained):
        raise PplcError(tr("{name} has no pretrained weights on this machine", name=spec.name))
    paddle = load_paddle(config.train.threads)
    paddle.seed(config.train.seed)
    network = build_network(spec.name, classes, dropout=config.model.dropout, options=config.model.options)
    load_pretrained(network, spec, config.model.pretrained)
    network.eval()
    pipeline = Pipeline(config.eval.transforms, training=False)
    with tempfile.TemporaryDirectory(prefix="pplc-") as folder:
        save_graph(paddle, network, pipeline.size, Path(folder))
        engine = open_engine(Path(folder), "pplc", threads=config.predict.threads, features=True)
        loader = Loader(samples, pipeline, BATCH, classes, cache=cache, workers=config.data.workers)
        rows = []
        for batch in loader.epoch():
            rows.append(np.array(engine.run(batch.images)))
            check()
        ms = _latency(engine.run, pipeline.size)
    labels = np.array([sample.label for sample in samples], np.int64)
    return Probed(accuracy_out_of_fold(np.concatenate(rows), labels, parts, classes), ms)


def _latency(run: Callable[[np.ndarray], Any], size: tuple[int, int]) -> float:
    image = np.zeros((1, 3, *size), np.float32)
    times = []
    for _ in range(WARM_UP + RUNS):
        began = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[WARM_UP:])


def accuracy_out_of_fold(features: np.ndarray, labels: np.ndarray, parts: np.ndarray, classes: int) -> float:
    """Accuracy of logistic regression, each image predicted by the one fitted without its fold.

    Args:
        features: float32 (N, features).
        labels: int64 (N,).
        parts: the fold of each image, from 0.
        classes: number of classes.
    """
    from pplc_cli.training.transfer.probe import fit_linear

    right = 0
    for part in np.unique(parts):
        held = parts == part
        weight, bias = fit_linear(features[~held], labels[~held], classes)
        right += int(((features[held] @ weight + bias).argmax(1) == labels[held]).sum())
    return right / len(labels)


def standard_error(share: float, count: int) -> float:
    """Of a share measured on ``count`` images."""
    return math.sqrt(max(share * (1 - share), 0.25 / count) / count)
