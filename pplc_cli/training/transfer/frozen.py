"""Freeze a network's early stages: compute their output once, and train the late stages on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from pplc_cli.base.errors import TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import as_tensor
from pplc_cli.data.loading.loader import Batch, Loader
from pplc_cli.training.transfer.stages import Stages, evaluating, stage_of_parameters

HEAD = "head"


def feature_bytes(shape: Sequence[int], images: int) -> int:
    """Memory for the features of images, each float32 of ``shape``."""
    return images * int(np.prod(shape)) * 4


def head_features(network: Any, image_size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of the classifier's input for one image, if all other stages are frozen."""
    front = Stages(network, 0, len(network.named_stages()) - 1)
    with evaluating(network), paddle.no_grad():
        return tuple(front(paddle.zeros([1, 3, *image_size])).shape[1:])


class FrozenPart:
    """A network whose early stages are frozen; their batch norm uses its running statistics.

    Attributes:
        front: the frozen stages.
        tail: the stages that train.
    """

    def __init__(self, network: Any, last: str, name: str, image_size: tuple[int, int]) -> None:
        """Freeze the parameters of the early stages.

        Args:
            network: a :class:`pplc_cli.models.families.layers.StagedNetwork`.
            last: name of the last frozen stage, or :data:`HEAD` for all stages but the classifier.
            name: of the network, for messages.
            image_size: height and width of the images.

        Raises:
            TrainError: the network has no stages, or none of this name.
        """
        if not hasattr(network, "named_stages"):
            raise TrainError(
                tr("{name} has no stages to freeze; set train.freeze: null and train.transfer: full", name=name)
            )
        names = [stage for stage, _ in network.named_stages()]
        if last != HEAD and last not in names[:-1]:
            raise TrainError(
                tr(
                    "train.freeze: {name} has no stage {stage!r}; there are {stages}",
                    name=name,
                    stage=last,
                    stages=", ".join([*names[:-1], HEAD]),
                )
            )
        count = len(names) - 1 if last == HEAD else names.index(last) + 1
        self.network = network
        self.front, self.tail = Stages(network, 0, count), Stages(network, count, len(names))
        stages = stage_of_parameters(network, image_size)
        for parameter in network.parameters():
            parameter.stop_gradient = parameter.stop_gradient or stages.get(parameter.name, 0) < count

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the output of the frozen stages for a batch, float32."""
        with evaluating(self.network), paddle.no_grad():
            return self.front(as_tensor(images)).numpy()


class FeatureLoader:
    """Loads features of a loader's images; computes them when an epoch first needs them, and keeps them in memory.

    Attributes:
        samples: the loader's.
        classes: the loader's.
        shape: of one image's features.
        views: augmented versions of each image; epoch e uses view e modulo this.
        bytes: memory for all views.
        wait: 0: loading features takes no time.
    """

    def __init__(self, loader: Loader, part: FrozenPart, views: int) -> None:
        """
        Args:
            loader: of the images.
            part: computes the features.
            views: number of views; not reduced when memory is short, since a resumed run must train on the same views.
        """
        self.loader, self.part, self.samples, self.views = loader, part, loader.samples, views
        self.classes = loader.classes
        self.shape = tuple(part.features(np.zeros((1, 3, *loader.pipeline.size), np.float32)).shape[1:])
        self.bytes, self.wait = feature_bytes(self.shape, views * len(loader.samples)), 0.0
        self._views: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield batches as :meth:`Loader.epoch` does, with features instead of images."""
        view = epoch % self.views
        if view not in self._views:
            self._views[view] = self._compute(view)
        features, targets = self._views[view]
        for share in self.loader.shares(epoch):
            labels = np.array([self.samples[i].label for i in share.indices], np.int64)
            rows = share.indices
            yield Batch(features[rows], labels, targets[rows], rows, share.global_size, share.loss_weight)

    def _compute(self, view: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute features and targets of all images, float32, in the order of the list."""
        features = np.empty((len(self.samples), *self.shape), np.float32)
        targets = np.empty((len(self.samples), self.loader.classes), np.float32)
        done = 0
        for batch in self.loader.in_order().epoch(view):
            rows = slice(done, done + len(batch.labels))
            features[rows], targets[rows] = self.part.features(batch.images), batch.targets
            done = rows.stop
        return features, targets
