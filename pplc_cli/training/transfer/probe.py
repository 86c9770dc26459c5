"""Linear probe: fit the classifier to pretrained features by logistic regression.

A probe before fine-tuning keeps features that the gradients of a random classifier would spoil: Kumar et al., 2022,
arXiv:2202.10054.
"""

from __future__ import annotations

import copy
from typing import Any, Optional

import numpy as np
import paddle
from paddle import nn

from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import as_tensor
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample, spread
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.kernels import accelerate
from pplc_cli.training.transfer.frozen import FrozenPart
from pplc_cli.training.transfer.stages import Stages, evaluating

PROBE_IMAGES = 10_000  # at most; the features of two views take about 100 MB
BATCH = 32
PROBE_VIEWS = 4  # of each image: one as for evaluation, the others augmented
FEW_IMAGES = 1_000  # beyond, two views are as good
# The penalty of the logistic regression: features are divided by this power of their deviations, and the mean loss
# counts this much against half the sum of the squared weights. Of 15 pairs, none is better by more than half a point on
# either set of photographs, with EfficientNet-Lite0 or with the built-in weights (docs/builtin_weights.md).
SCALING, STRENGTH = 0.5, 3.0


class Probe:
    """A linear probe of a network with its current weights."""

    def __init__(self, config: Config, network: Any, classifier: Any, frozen: Optional[FrozenPart] = None) -> None:
        """
        Args:
            config: of the run.
            network: a :class:`pplc_cli.models.families.layers.StagedNetwork`; others cannot be probed.
            classifier: the layer in the last stage whose size is the number of classes.
            frozen: all stages before the classifier, if they are frozen and accelerated already.
        """
        self._config, self._network, self._classifier = config, network, classifier
        self._front: Optional[Stages] = frozen.front if frozen is not None else None
        if frozen is None and hasattr(network, "named_stages"):
            self._front = Stages(network, 0, len(network.named_stages()) - 1)
            if config.train.accelerate and paddle.get_device() == "cpu":
                accelerate(self._front, config.train.threads)

    def fit(self, loader: Loader, class_weights: Optional[np.ndarray] = None) -> Optional[str]:
        """Fit the classifier by logistic regression.

        Args:
            loader: of the training images; beyond :data:`PROBE_IMAGES`, an even selection is used.
            class_weights: float32 (classes,), or None.

        Returns:
            None, or the reason why the classifier is unchanged.
        """
        if self._front is None:
            return tr("the network has no stages")
        front = self._front
        if not isinstance(self._classifier, nn.Linear):
            return tr("its classifier is not a linear layer")
        samples = spread(loader.samples, PROBE_IMAGES)
        labels = np.array([sample.label for sample in samples], np.int64)
        if len(np.unique(labels)) < 2:
            return tr("all images are of one class")
        features = self._features(front, loader, samples)
        targets = np.tile(labels, len(features) // len(labels))
        weights = None if class_weights is None else class_weights[targets]
        weight, bias = fit_linear(features, targets, self._classifier.weight.shape[1], weights)
        self._classifier.weight.set_value(weight)
        self._classifier.bias.set_value(bias)
        return None

    def _features(self, front: Stages, loader: Loader, samples: list[Sample]) -> np.ndarray:
        """Compute the features of all samples, unaugmented and then augmented, float32 (views * samples, features)."""
        views = PROBE_VIEWS if len(samples) <= FEW_IMAGES else 2
        evaluation = Pipeline(self._config.eval.transforms, training=False)
        augmented = copy.copy(loader.pipeline)
        augmented.batch = []  # a blend of two images has two labels
        found: Optional[np.ndarray] = None
        done = 0
        with evaluating(self._network), paddle.no_grad():
            scale = self._dropout_scale()
            for view, pipeline in enumerate([evaluation, *[augmented] * (views - 1)]):
                # No cache: it would keep images at full resolution, which training never uses.
                each = Loader(samples, pipeline, BATCH, loader.classes, workers=loader.workers, seed=loader.seed)
                for batch in each.epoch(view):
                    rows = front(as_tensor(batch.images)).numpy() * scale
                    if found is None:
                        found = np.empty((views * len(samples), rows.shape[1]), np.float32)
                    found[done : done + len(rows)] = rows
                    done += len(rows)
        assert found is not None
        return found

    def _dropout_scale(self) -> float:
        """The factor between features and classifier in evaluation mode, which some networks' dropout applies."""
        layer = self._classifier
        kept = layer.weight.clone(), layer.bias.clone()
        layer.weight.set_value(paddle.ones_like(layer.weight))
        layer.bias.set_value(paddle.zeros_like(layer.bias))
        one = paddle.ones([1, layer.weight.shape[0]])
        scale = float(self._network.named_stages()[-1][1](one).sum() / layer(one).sum())
        for parameter, value in zip((layer.weight, layer.bias), kept):
            parameter.set_value(value)
        return scale


def fit_linear(
    features: np.ndarray, targets: np.ndarray, classes: int, weights: Optional[np.ndarray] = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear layer by logistic regression: weight, float32 (features, classes), and bias, float32 (classes,).

    Args:
        features: float32 (N, features).
        targets: int64 (N,); a class without images gets the lowest logit for all of them.
        classes: size of the layer.
        weights: weights of the images, (N,), or None.
    """
    from sklearn.linear_model import LogisticRegression

    present = np.unique(targets)
    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    typical = max(float(np.sqrt(np.square(deviation).mean())), 1e-6)
    divisor = np.maximum(deviation, 1e-3 * typical) ** SCALING * typical ** (1 - SCALING)
    scaled = ((features - mean) / divisor).astype(np.float32)
    fitted = LogisticRegression(C=STRENGTH / len(features), max_iter=300).fit(scaled, targets, weights)
    rows, bias = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    if len(present) == 2:  # scikit-learn gives one row for both
        rows, bias = np.stack([-rows[0] / 2, rows[0] / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    weight, shift = np.zeros((features.shape[1], classes)), np.zeros(classes)
    weight[:, present] = (rows / divisor).T
    shift[present] = bias - (rows / divisor) @ mean
    absent = np.setdiff1d(np.arange(classes), present)
    # Lower than the lowest logit of every image, not only of the mean image.
    shift[absent] = (features @ weight[:, present] + shift[present]).min() - 10.0
    return weight.astype(np.float32), shift.astype(np.float32)
