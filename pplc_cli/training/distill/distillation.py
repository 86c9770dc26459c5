"""Knowledge distillation: a student is trained on a teacher's predictions for images with and without labels.

Soft labels: Hinton et al., 2015, arXiv:1503.02531. SSLD (Cui et al., 2021, arXiv:2103.05959) trains on images with and
without labels together, by the Jensen-Shannon divergence. Matching features through a trained projection: Romero et
al., 2014, arXiv:1412.6550; here by cosine similarity to the teacher's standardised features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
from paddle import nn

from pplc_cli.base.errors import TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import as_tensor
from pplc_cli.config.sections import Config, DistillConfig
from pplc_cli.data.loading.loader import Batch, Loader
from pplc_cli.data.transforms.basic import Normalize
from pplc_cli.training.distill.teacher import Teacher, open_teacher
from pplc_cli.training.distill.teacher_cache import TeacherCache
from pplc_cli.training.progress import Reporter
from pplc_cli.training.step.objective import TINY, cross_entropy, divergence
from pplc_cli.training.transfer.stages import Stages, evaluating


class Distillation:
    """The loss between a student and its teacher's stored predictions.

    Attributes:
        layers: the student, with the projection if there is one.
        front: the student up to its features if these are matched, else None.
        projection: a linear layer from the student's features to the teacher's, trained with the student, or None.
    """

    def __init__(self, config: DistillConfig, outputs: TeacherCache, network: Any) -> None:
        """
        Args:
            config: the weights of the losses.
            outputs: the teacher's predictions.
            network: the student; to match features, a :class:`pplc_cli.models.families.layers.StagedNetwork`.
        """
        self.config, self.outputs = config, outputs
        self.front: Optional[Any] = None
        self.projection: Optional[Any] = None
        self.layers = network
        if config.features:
            self.front = Stages(network, 0, len(network.named_stages()) - 1)
            self._classify = Stages(network, len(network.named_stages()) - 1, len(network.named_stages()))
            with evaluating(network), paddle.no_grad():
                width = int(network.features(paddle.zeros([1, 3, *outputs.size])).shape[1])
            self.projection = nn.Linear(width, outputs.teacher.features)
            self.layers = nn.LayerDict({"student": network, "map": self.projection})  # "map" is in checkpoints

    def __call__(self, network: Any, batch: Batch, epoch: int) -> tuple[Any, Any]:
        """See :class:`~pplc_cli.training.step.objective.Objective`; the batch is of the loader given to the teacher."""
        images = as_tensor(batch.images)
        if self.front is None:
            logits, features = network(images), None
        else:
            features = self.front(images)
            logits = self._classify(features)
        return logits, self._loss(logits, features, batch, self.outputs.of(epoch % self.outputs.views))

    def _loss(self, logits: Any, features: Any, batch: Batch, stored: dict[str, np.ndarray]) -> Any:
        config = self.config
        # The teacher's prediction for a blend of two images is the blend of its predictions.
        mixing = None if batch.mixing is None else paddle.to_tensor(batch.mixing)
        total = paddle.zeros([])
        if config.soft:
            temperature = config.temperature
            teacher = paddle.to_tensor(stored["log_probabilities"][batch.indices].astype(np.float32)) / temperature
            if mixing is not None:
                teacher = (mixing @ nn.functional.softmax(teacher, axis=1)).clip(min=TINY).log()
            # The factor temperature**2 keeps the size of the gradients.
            soft = divergence(config.divergence, teacher, logits / temperature).mean()
            total = total + config.soft * temperature**2 * soft
        if self.projection is not None:
            standardised = (stored["features"][batch.indices] - self.outputs.mean) / self.outputs.deviation
            target = paddle.to_tensor(standardised.astype(np.float32))
            if mixing is not None:
                target = mixing @ target
            similarity = nn.functional.cosine_similarity(self.projection(features), target, axis=1)
            total = total + config.features * (1 - similarity).mean()
        labelled = batch.targets.sum(axis=1)  # labelled share of each image; below 1 for blends with unlabelled ones
        known = np.flatnonzero(labelled)
        if config.hard and len(known):
            shares = labelled[known]
            targets = paddle.to_tensor(batch.targets[known] / shares[:, None])
            losses = cross_entropy(logits.index_select(paddle.to_tensor(known)), targets)
            total = total + config.hard * (losses * paddle.to_tensor(shares)).sum() / float(shares.sum())
        # A mean, not a sum: a learning rate that suits training alone would be too high for a sum of large weights, and
        # spoil pretrained features in the first epochs.
        return total / (config.soft + config.features + config.hard)


def build_distillation(
    config: Config, network: Any, labels: Sequence[str], loader: Loader, folder: Path, reporter: Reporter
) -> Distillation:
    """Build the distillation loss; the teacher of a configuration predicts all images of a loader.

    Args:
        config: with ``distill.teacher``.
        network: the student.
        labels: its classes.
        loader: of the training images; later epochs repeat the views that the teacher predicts.
        folder: stores the predictions.
        reporter: receives the progress.

    Raises:
        PplcError: the teacher cannot be loaded, or does not fit the configuration.
    """
    wanted = config.distill
    assert wanted.teacher is not None
    teacher = open_teacher(wanted.teacher, wanted.weights, loader.pipeline.size, threads=config.train.threads)
    columns = _columns(teacher, labels) if wanted.soft else None
    if wanted.features and not teacher.features:
        raise TrainError(tr("distill.features: {name} has no features; set distill.features: 0", name=teacher.name))
    if wanted.features and not hasattr(network, "named_stages"):
        raise TrainError(
            tr("distill.features: {name} has no features; set distill.features: 0", name=config.model.name)
        )
    if not isinstance(loader.pipeline.sample[-1], Normalize):
        raise TrainError(tr("train.transforms: with distill.teacher, Normalize must come last"))
    loader.views = wanted.views
    outputs = TeacherCache(teacher, loader, wanted.views, folder, reporter.teacher, columns)
    if loader.unusable:
        (first, *_), more = sorted(loader.unusable.values()), len(loader.unusable) - 1
        if more:
            reporter.note(
                tr("{first}, and {count} more cannot be read; black images take their place", first=first, count=more)
            )
        else:
            reporter.note(tr("{first}; a black image takes its place", first=first))
    reporter.note(
        tr(
            "distilling {name}: {count:,} images in {views} views",
            name=teacher.name,
            count=len(loader.samples),
            views=wanted.views,
        )
    )
    return Distillation(wanted, outputs, network)


def _columns(teacher: Teacher, labels: Sequence[str]) -> Optional[list[int]]:
    """The indices of the teacher's classes in the student's order; None if the order is the same.

    Raises:
        TrainError: the teacher has other classes.
    """
    if teacher.labels is not None and teacher.labels != list(labels):
        if sorted(teacher.labels) != sorted(labels):
            raise TrainError(
                tr(
                    "distill.teacher: {name} has the classes {labels}, the data set has {wanted}; to match "
                    "features instead, set distill.soft: 0 and distill.features: 1",
                    name=teacher.name,
                    labels=", ".join(teacher.labels[:5]),
                    wanted=", ".join(labels[:5]),
                )
            )
        return [teacher.labels.index(label) for label in labels]
    if teacher.classes != len(labels):
        raise TrainError(
            tr(
                "distill.teacher: {name} has {classes} classes, the data set has {count}; to match "
                "features instead, set distill.soft: 0 and distill.features: 1",
                name=teacher.name,
                classes=teacher.classes,
                count=len(labels),
            )
        )
    return None
