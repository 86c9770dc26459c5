"""Checks beyond the type and the limits of a single key: transforms, network, combinations, paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.config.sections import Config


def check_transforms_of(sections: Mapping[str, Any], faults: list[str]) -> None:
    """Append the faults of the transforms in raw sections, also if other sections are not valid."""
    from pplc_cli.data.transforms.pipeline import check_transforms  # loads OpenCV, which the command needs anyway

    for section in ("train", "eval"):
        part = sections.get(section)
        raw = part.get("transforms") if isinstance(part, Mapping) else None
        if isinstance(raw, list):
            check_transforms(raw, f"{section}.transforms", faults, training=section == "train")


def check_network(sections: Mapping[str, Any], faults: list[str]) -> None:
    """Append a fault if no network has the name in the raw section ``model``."""
    from pplc_cli.models.registry import find_network, in_file

    part = sections.get("model")
    name = part.get("name") if isinstance(part, Mapping) else None
    if isinstance(name, str) and not in_file(name):  # the configuration of a run may name code that is not loaded
        try:
            find_network(name)
        except PplcError as error:
            faults.append(tr("model.name: {error}", error=error))


def check_combinations(config: Config, faults: list[str]) -> None:
    """Append the faults of keys that are valid alone but not together."""
    train, split = config.train, config.split
    for name, value in (("data.dir", config.data.dir), ("output", config.output)):
        if not value.strip():
            faults.append(tr("{name}: expected a folder, got {value!r}", name=name, value=value))
    if split.val + split.test >= 1:
        faults.append(
            tr(
                "split: expected val + test below 1, got {val:g} + {test:g}: no image is left for training",
                val=split.val,
                test=split.test,
            )
        )
    if train.schedule == "piecewise" and sorted(set(train.lr_decay_epochs)) != train.lr_decay_epochs:
        faults.append(
            tr(
                "train.lr_decay_epochs: expected rising epochs, got {epochs}",
                epochs=train.lr_decay_epochs,
            )
        )
    if not re.fullmatch(r"cpu|auto|gpu:\d+(,\d+)*", train.device):
        faults.append(tr("train.device: expected cpu, auto, gpu:0 or gpu:0,1, got {device!r}", device=train.device))
    if train.precision == "bfloat16" and not train.accelerate:
        faults.append(tr("train.precision: bfloat16 requires train.accelerate: true"))
    if train.batch_norm == "frozen" and config.model.pretrained == "none":
        faults.append(tr("train.batch_norm: frozen requires pretrained weights; use batch, or set model.pretrained"))
    if train.average == "all" and train.ema_decay:
        faults.append(tr("train.average: all cannot be combined with train.ema_decay; remove one of them"))
    if train.freeze is not None and train.transfer in ("stages", "head"):
        faults.append(
            tr(
                "train.transfer: {transfer} cannot be combined with train.freeze; remove one of them",
                transfer=train.transfer,
            )
        )
    if train.progressive_from and train.transfer == "head":
        faults.append(
            tr("train.transfer: head computes features once, at one image size; remove train.progressive_from")
        )
    if train.progressive_from and train.freeze:
        faults.append(tr("train.freeze: features are computed once, at one image size; remove train.progressive_from"))
    if config.data.sampler is not None and train.class_weights is not None:
        faults.append(
            tr(
                "data.sampler: {sampler} cannot be combined with train.class_weights: both correct the numbers of "
                "images; remove one of them",
                sampler=config.data.sampler,
            )
        )
    if config.distill.teacher is not None:
        _check_distillation(config, faults)
    elif config.data.unlabelled is not None:
        faults.append(tr("data.unlabelled: unlabelled images require distill.teacher"))
    if train.warmup_epochs > train.epochs:
        faults.append(
            tr(
                "train.warmup_epochs: expected at most train.epochs ({epochs}), got {warmup:g}",
                epochs=train.epochs,
                warmup=train.warmup_epochs,
            )
        )
    if split.group is not None:
        try:
            re.compile(split.group)
        except (re.error, OverflowError, RecursionError) as error:
            faults.append(
                tr(
                    "split.group: expected a regular expression, got {group!r} ({error})",
                    group=split.group,
                    error=error,
                )
            )


def _check_distillation(config: Config, faults: list[str]) -> None:
    distill = config.distill
    if not distill.soft + distill.features + distill.hard:
        faults.append(tr("distill: soft, features and hard are all 0; set at least one of them"))
    if config.train.freeze is not None:
        faults.append(tr("distill.teacher cannot be combined with train.freeze; remove one of them"))
    if config.train.transfer in ("stages", "head"):
        faults.append(
            tr(
                "distill.teacher cannot be combined with train.transfer: {transfer}; remove one of them",
                transfer=config.train.transfer,
            )
        )
    if config.train.class_weights is not None:
        faults.append(tr("distill.teacher cannot be combined with train.class_weights; remove one of them"))


def check_paths(config: Config, must_exist: Sequence[str], faults: list[str]) -> None:
    """Append the missing files and folders of the keys ``must_exist``; see :func:`pplc_cli.config.load.load_config`."""
    if "data.dir" in must_exist and not os.path.isdir(user_path(config.data.dir)):  # noqa: PTH112 - never raises
        faults.append(
            tr(
                "data.dir: no such folder {folder!r} (looked for {path})",
                folder=config.data.dir,
                path=user_path(config.data.dir).absolute(),
            )
        )
    if "data.dir" in must_exist:
        for name in ("train_list", "val_list", "test_list", "labels", "extra_list"):
            value = getattr(config.data, name)
            if value is not None and not os.path.isfile(user_path(value)):  # noqa: PTH113
                faults.append(tr("data.{name}: no such file {file!r}", name=name, file=value))
        if config.split.table is not None and not os.path.isfile(user_path(config.split.table)):  # noqa: PTH113
            faults.append(tr("split.table: no such file {table!r}", table=config.split.table))
        unlabelled = config.data.unlabelled
        if unlabelled is not None and not os.path.isdir(user_path(unlabelled)):  # noqa: PTH112
            faults.append(tr("data.unlabelled: no such folder {folder!r}", folder=unlabelled))
    if "model.pretrained" in must_exist:
        from pplc_cli.models.weights.pretrained import SOURCES

        pretrained = config.model.pretrained
        if pretrained not in SOURCES and not os.path.exists(user_path(pretrained)):  # noqa: PTH110
            faults.append(
                tr(
                    "model.pretrained: expected {sources} or a weights file, got {pretrained!r}, which does not exist",
                    sources=", ".join(SOURCES),
                    pretrained=pretrained,
                )
            )
