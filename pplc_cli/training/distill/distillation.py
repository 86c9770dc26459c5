"""Knowledge distillation: a student learns what a frozen teacher says of images, with labels and without.

Soft labels are Hinton et al., 2015, arXiv:1503.02531; SSLD (Cui et al., 2021, arXiv:2103.05959) learns from images
with and without labels together, by the Jensen-Shannon divergence. Features compared behind a map that is learnt are
Romero et al., 2014, arXiv:1412.6550; here by the cosine, after the teacher's were standardised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import paddle
from paddle import nn

from pplc_cli.base.errors import TrainError
from pplc_cli.base.paddle import as_tensor
from pplc_cli.config.sections import Config, DistillConfig
from pplc_cli.data.loader import Batch, Loader
from pplc_cli.data.transforms.basic import Normalize
from pplc_cli.training.distill.answers import TeacherCache
from pplc_cli.training.distill.teacher import Teacher
from pplc_cli.training.objective import TINY, cross_entropy, divergence
from pplc_cli.training.progress import Reporter
from pplc_cli.training.transfer.stages import Stages, evaluating


class Distillation:
    """How a student learns from what its teacher said.

    Attributes:
        front: the student up to its features, where they are learnt too; else None.
        map: from the student's features to the teacher's, learnt along with the student; else None.
    """

    def __init__(self, config: DistillConfig, outputs: TeacherCache, network: Any) -> None:
        """Args: network: the student; where features are learnt, it has ``parts``."""
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
        """See :class:`pplc_cli.training.objective.Objective`; the batch is of the loader that the teacher predicted."""
        images = as_tensor(batch.images)
        if self.front is None:
            logits, features = network(images), None
        else:
            features = self.front(images)
            logits = self._classify(features)
        return logits, self._loss(logits, features, batch, self.outputs.of(epoch % self.outputs.views))

    def _loss(self, logits: Any, features: Any, batch: Batch, said: dict[str, np.ndarray]) -> Any:
        config = self.config
        # What a teacher says of a blend is taken as the blend of what it says of the two.
        mixing = None if batch.mixing is None else paddle.to_tensor(batch.mixing)
        total = paddle.zeros([])
        if config.soft:
            heat = config.temperature
            theirs = paddle.to_tensor(said["log_probabilities"][batch.indices].astype(np.float32)) / heat
            if mixing is not None:
                theirs = (mixing @ nn.functional.softmax(theirs, axis=1)).clip(min=TINY).log()
            # Times the temperature's square, so that gradients keep their size.
            total = total + config.soft * heat**2 * divergence(config.divergence, theirs, logits / heat).mean()
        if self.projection is not None:
            seen = (said["features"][batch.indices] - self.outputs.mean) / self.outputs.deviation
            theirs = paddle.to_tensor(seen.astype(np.float32))
            if mixing is not None:
                theirs = mixing @ theirs
            alike = nn.functional.cosine_similarity(self.projection(features), theirs, axis=1)
            total = total + config.features * (1 - alike).mean()
        labelled = batch.targets.sum(axis=1)  # how much of an image has a label
        known = np.flatnonzero(labelled)
        if config.hard and len(known):
            shares = labelled[known]
            targets = paddle.to_tensor(batch.targets[known] / shares[:, None])
            losses = cross_entropy(logits.index_select(paddle.to_tensor(known)), targets)
            total = total + config.hard * (losses * paddle.to_tensor(shares)).sum() / float(shares.sum())
        return total


def build_distillation(
    config: Config, network: Any, labels: Sequence[str], loader: Loader, folder: Path, reporter: Reporter
) -> Distillation:
    """Ask a configuration's teacher about all of a loader's images.

    Args:
        config: with ``distill.teacher``.
        network: the student.
        labels: its classes.
        loader: of what it learns from; its images keep to the views from here on.
        folder: where the answers are kept.
        reporter: told of progress.

    Raises:
        PplcError: the teacher cannot be loaded, or does not fit what is asked of it.
    """
    from pplc_cli.training.distill.teacher import open_teacher

    wanted = config.distill
    assert wanted.teacher is not None
    teacher = open_teacher(wanted.teacher, wanted.weights, loader.pipeline.size, threads=config.train.threads)
    columns = _columns(teacher, labels) if wanted.soft else None
    if wanted.features and not teacher.features:
        raise TrainError(f"distill.features: what the classifier of {teacher.name} reads cannot be had; set it to 0")
    if wanted.features and not hasattr(network, "named_stages"):
        raise TrainError(f"distill.features: {config.model.name} does not give its features; set it to 0")
    if not isinstance(loader.pipeline.sample[-1], Normalize):
        raise TrainError("train.transforms: a teacher needs images as Normalize leaves them; put it last")
    loader.views = wanted.views
    outputs = TeacherCache(teacher, loader, wanted.views, folder, reporter.teacher, columns)
    if loader.unusable:
        (first, *_), more = sorted(loader.unusable), len(loader.unusable) - 1
        reporter.note(f"{first}{f' and {more} more' if more else ''} cannot be used; nothing is learnt from them")
    reporter.note(f"learning from {teacher.name}, {len(loader.samples):,} images in {wanted.views} views")
    return Distillation(wanted, outputs, network)


def _columns(teacher: Teacher, labels: Sequence[str]) -> Optional[list[int]]:
    """The teacher's classes in the student's order; None: as they are.

    Raises:
        TrainError: they are others.
    """
    if teacher.labels is not None and teacher.labels != list(labels):
        if sorted(teacher.labels) != sorted(labels):
            raise TrainError(
                f"distill.teacher: {teacher.name} knows {', '.join(teacher.labels[:5])}, the data set has "
                f"{', '.join(labels[:5])}; with distill.soft: 0 and distill.features: 1 it teaches what it sees"
            )
        return [teacher.labels.index(label) for label in labels]
    if teacher.classes != len(labels):
        raise TrainError(
            f"distill.teacher: {teacher.name} knows {teacher.classes} classes, the data set has {len(labels)}; with "
            "distill.soft: 0 and distill.features: 1 it teaches what it sees"
        )
    return None
