"""The one YAML that drives every step: its vocabulary, and reading it strictly."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from pplc_cli.base.errors import ConfigError, PplcError
from pplc_cli.base.files import user_path
from pplc_cli.base.schema import did_you_mean, option, read
from pplc_cli.models.options import ModelOptions
from pplc_cli.predict.engines.base import ENGINES, PRECISIONS

DEFAULT_TRAIN_TRANSFORMS = [{"RandomCrop": {"crop_size": 224}}, "RandomHorizontalFlip", "Normalize"]
DEFAULT_EVAL_TRANSFORMS = [
    {"ResizeByShort": {"short_size": 256}},
    {"CenterCrop": {"crop_size": 224}},
    "Normalize",
]

MAX_VALUES = 100_000  # in one YAML; aliases count as often as they stand


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the photographs are. Lists are looked for in ``dir`` under PaddleX 2.x and 3.x names."""

    dir: str = option()
    train_list: Optional[str] = option(None)
    val_list: Optional[str] = option(None)
    test_list: Optional[str] = option(None)
    labels: Optional[str] = option(None)
    extra_list: Optional[str] = option(None)  # a list to train on as well, as pplc label writes it
    unlabelled: Optional[str] = option(None)  # more pictures, for distillation
    cache_mb: Optional[int] = option(None, at_least=0)  # decoded pictures in memory; null: half of what is free
    workers: Optional[int] = option(None, at_least=1)  # decoding threads; null: one a core


@dataclasses.dataclass(frozen=True)
class SplitConfig:
    """Shares of each class, and what must stay together."""

    val: float = option(0.2, more_than=0, below=1)
    test: float = option(0.1, at_least=0, below=1)
    seed: int = option(0, at_least=0)
    group: Optional[str] = option(None)
    format: str = option("paddlex2", choices=("paddlex2", "paddlex3"))


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and the weights that it starts from: auto, none, imagenet, imagenet_ssld, builtin, or a file."""

    name: str = option("PPLCNet_x1_0")
    pretrained: str = option("auto")  # auto: the best official ones that can be had, else the built-in ones
    dropout: Optional[float] = option(None, at_least=0, below=1)  # null: what the network is known for
    options: ModelOptions = option(ModelOptions())


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The recipe. Names and defaults follow PaddleX 2.x where it had them."""

    epochs: int = option(10, at_least=1)
    batch_size: int = option(32, at_least=1)
    learning_rate: float = option(0.025, more_than=0)
    optimizer: str = option("momentum", choices=("momentum", "sgd", "adam", "adamw"))
    momentum: float = option(0.9, at_least=0, below=1)
    weight_decay: float = option(1e-4, at_least=0)
    schedule: str = option("piecewise", choices=("piecewise", "cosine", "constant"))
    lr_decay_epochs: list[int] = option([30, 60, 90], at_least=1)
    lr_decay_gamma: float = option(0.1, more_than=0, at_most=1)
    warmup_epochs: float = option(0.0, at_least=0)
    warmup_start_lr: float = option(0.0, at_least=0)
    label_smoothing: float = option(0.0, at_least=0, below=1)
    ema_decay: float = option(0.0, at_least=0, below=1)  # 0: no moving average of the weights
    clip_grad_norm: float = option(0.0, at_least=0)  # 0: gradients are not clipped
    early_stop: bool = option(False)
    early_stop_patience: int = option(5, at_least=1)
    class_weights: Union[str, dict[str, float], None] = option(None, more_than=0, choices=("balanced",))
    seed: int = option(0, at_least=0)
    threads: Optional[int] = option(None, at_least=1)  # null: physical cores
    device: str = option("cpu")
    accelerate: bool = option(True)
    precision: str = option("float32", choices=("float32", "bfloat16"))
    batch_norm: str = option("auto", choices=("batch", "frozen", "auto"))  # frozen: as the weights have it
    sync_batch_norm: bool = option(False)
    progressive_from: Optional[int] = option(None, at_least=32)
    progressive_share: float = option(0.75, more_than=0, at_most=1)
    transfer: str = option("full", choices=("full", "stages", "head", "auto"))  # how pretrained weights are fitted
    freeze: Optional[str] = option(None)
    freeze_views: int = option(4, at_least=1)
    log_interval_steps: int = option(10, at_least=1)
    visualdl: bool = option(False)
    transforms: list[Any] = option(DEFAULT_TRAIN_TRANSFORMS)


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """What the network learns from another one, on the training list and on ``data.unlabelled`` together."""

    teacher: Optional[str] = option(None)  # a run, an exported folder, an ONNX file, a network; null: no distillation
    weights: Optional[str] = option(None)  # of a network, as model.pretrained; null: its best official ones
    divergence: str = option("js", choices=("js", "kl"))
    temperature: float = option(1.0, more_than=0)
    soft: float = option(1.0, at_least=0)  # weight of the teacher's labels
    features: float = option(0.0, at_least=0)  # weight of what its classifier reads
    hard: float = option(0.0, at_least=0)  # weight of the lists' own labels
    views: int = option(4, at_least=1)  # augmented versions of each picture that the teacher sees
    cache: Optional[str] = option(None)  # the folder of its answers; null: in the run's


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How a trained network is measured."""

    batch_size: int = option(32, at_least=1)
    split: Optional[str] = option(None, choices=("train", "val", "test"))  # null: test, else val
    worst: int = option(24, at_least=0)  # mistakes on the contact sheet
    transforms: list[Any] = option(DEFAULT_EVAL_TRANSFORMS)


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """How closely the exported model must follow the trained network."""

    tolerance: float = option(1e-4, more_than=0)
    images: int = option(64, at_least=1)
    max_accuracy_loss: float = option(0.01, at_least=0, below=1)  # top-1 that int8 or bfloat16 may cost
    calibration_images: int = option(128, at_least=1)  # training pictures that int8's ranges are fitted to
    model_name: Optional[str] = option(None)  # null: the name that PaddleX has for the network


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """How the exported model is run."""

    engine: str = option("default", choices=("default", "auto", *ENGINES))
    precision: str = option("float32", choices=PRECISIONS)
    mkldnn: bool = option(True)
    threads: Optional[int] = option(None, at_least=1)  # null: physical cores
    workers: Optional[int] = option(None, at_least=1)  # of many pictures at a time; null: as many as threads
    batch_size: Optional[int] = option(None, at_least=1)  # null: 16
    top_k: int = option(1, at_least=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole YAML."""

    data: DataConfig = option()
    output: str = option()
    split: SplitConfig = option(SplitConfig())
    model: ModelConfig = option(ModelConfig())
    train: TrainConfig = option(TrainConfig())
    distill: DistillConfig = option(DistillConfig())
    eval: EvalConfig = option(EvalConfig())
    export: ExportConfig = option(ExportConfig())
    predict: PredictConfig = option(PredictConfig())

    def to_dict(self) -> dict[str, Any]:
        """Plain data that reads back as an equal configuration."""
        return dataclasses.asdict(self)


def load_config(
    path: Union[str, Path, None] = None,
    overrides: Optional[Mapping[str, Any]] = None,
    *,
    must_exist: Sequence[str] = (),
) -> Config:
    """Read and check a configuration.

    Args:
        path: a YAML file; None starts from an empty one, so that the overrides are all there is.
        overrides: dotted key to value, applied over the file with the same checks.
        must_exist: dotted keys whose files or folders must be there: any of ``data.dir`` and ``model.pretrained``.

    Raises:
        ConfigError: with every fault found, not only the first.
    """
    source = str(path) if path is not None else "the options"
    raw = read_yaml(path) if path is not None else {}
    return check_config(raw, overrides, source=source, must_exist=must_exist)


def check_config(
    raw: Any,
    overrides: Optional[Mapping[str, Any]] = None,
    *,
    source: str = "config",
    must_exist: Sequence[str] = (),
) -> Config:
    """Check plain data as :func:`load_config` does with a file's."""
    faults: list[str] = []
    raw = _apply(raw, overrides or {}, faults)
    if isinstance(raw, dict) and "output" not in raw:
        folder = raw["data"].get("dir") if isinstance(raw.get("data"), Mapping) else None
        name = Path(folder.replace("\\", "/")).name if isinstance(folder, str) else ""
        raw["output"] = f"output/{'run' if name in ('', '..') else name}"
    config = read(Config, raw, "", faults)
    faults = [_hint_elsewhere(fault) for fault in faults]
    sections = raw if isinstance(raw, Mapping) else {}
    _check_transforms(sections, faults)
    _check_network(sections, faults)
    if config is not None:
        _check_meaning(config, faults)
        _check_paths(config, must_exist, faults)
    if faults or config is None:
        raise ConfigError(source, faults)
    return config


def read_yaml(path: Union[str, Path]) -> Any:
    """Plain data of a YAML file; nothing in it is evaluated.

    Raises:
        ConfigError: the file is missing, not text, not YAML, or says a key twice.
    """
    path = user_path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        ending = did_you_mean(path.name, beside) if beside else ""
        raise ConfigError(str(path), [f"no such file{ending}"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["expected YAML in UTF-8, got other bytes; save it as UTF-8"]) from None
    try:
        return _parse(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(str(path), [f"{where}expected YAML: {problem}"]) from None
    except ValueError as error:
        raise ConfigError(str(path), [f"expected plain YAML: {error}"]) from None


def parse_override(text: str) -> tuple[str, Any]:
    """``train.epochs=5`` as a dotted key and a YAML value.

    Raises:
        PplcError: there is no ``=``, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise PplcError(f"-o {text}: expected key=value, as in -o train.epochs=5")
    try:
        return key.strip(), _parse(value)
    except (yaml.YAMLError, ValueError):
        raise PplcError(f"-o {text}: the value is not valid YAML") from None


def _parse(text: str) -> Any:
    """Plain data of YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, or not plain data.
        ValueError: it is nested too deeply, or too large once its aliases are followed.
    """
    try:
        value = yaml.load(text, _Loader)  # a SafeLoader that also refuses doubled keys
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    waiting, count = [value], 0
    while waiting:
        count += 1
        if count > MAX_VALUES:  # also where an alias holds itself
            raise ValueError(f"it holds more than {MAX_VALUES} values, or an alias that holds itself")
        item = waiting.pop()
        if isinstance(item, (Mapping, list, tuple)):
            waiting.extend(item.values() if isinstance(item, Mapping) else item)
    return value


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError):  # 2026-13-45, !!bool maybe, !!timestamp never, ...
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"not a valid {kind}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        if not isinstance(node, yaml.MappingNode):
            return super().construct_mapping(node, deep)  # says what is wrong
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *defaults, where a key may stand again
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _apply(raw: Any, overrides: Mapping[str, Any], faults: list[str]) -> Any:
    """A copy of the raw mapping with the overrides set in it."""
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        return raw
    raw = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    for dotted, value in overrides.items():
        *parents, last = dotted.split(".")
        node = raw
        for parent in parents:
            child = node.get(parent)
            child = {} if child is None else child
            if not isinstance(child, Mapping):
                faults.append(f"{dotted}: {parent} holds a value, not keys")
                break
            node[parent] = dict(child)  # never the caller's own
            node = node[parent]
        else:
            node[last] = value
    return raw


def _hint_elsewhere(fault: str) -> str:
    """Point an unknown key at the section that does have a key of that name."""
    key, separator, _ = fault.partition(": unknown key")
    if not separator or "did you mean" in fault:
        return fault
    leaf = key.rpartition(".")[2]
    sections = {"data": DataConfig, "split": SplitConfig, "model": ModelConfig, "train": TrainConfig,
                "distill": DistillConfig, "eval": EvalConfig, "export": ExportConfig,
                "predict": PredictConfig}  # fmt: skip
    homes = [f"{name}.{leaf}" for name, cls in sections.items() if leaf in {f.name for f in dataclasses.fields(cls)}]
    return f"{key}: unknown key; did you mean {' or '.join(homes)}?" if homes else fault


def _check_transforms(sections: Mapping[str, Any], faults: list[str]) -> None:
    from pplc_cli.data.transforms.pipeline import check_transforms  # loads OpenCV, which the command needs anyway

    for section in ("train", "eval"):
        part = sections.get(section)
        raw = part.get("transforms") if isinstance(part, Mapping) else None
        if isinstance(raw, list):
            check_transforms(raw, f"{section}.transforms", faults, training=section == "train")


def _check_network(sections: Mapping[str, Any], faults: list[str]) -> None:
    from pplc_cli.models.registry import find_network

    part = sections.get("model")
    name = part.get("name") if isinstance(part, Mapping) else None
    if isinstance(name, str):
        try:
            find_network(name)
        except PplcError as error:
            faults.append(f"model.name: {error}")


def _check_meaning(config: Config, faults: list[str]) -> None:
    """What no single key can be wrong about."""
    train, split = config.train, config.split
    for name, value in (("data.dir", config.data.dir), ("output", config.output)):
        if not value.strip():
            faults.append(f"{name}: expected a folder, got {value!r}")
    if split.val + split.test >= 1:
        faults.append(
            f"split: expected val + test below 1, got {split.val:g} + {split.test:g}: nothing is left to train on"
        )
    if train.schedule == "piecewise" and sorted(set(train.lr_decay_epochs)) != train.lr_decay_epochs:
        faults.append(f"train.lr_decay_epochs: expected rising epochs, got {train.lr_decay_epochs}")
    if not re.fullmatch(r"cpu|auto|gpu:\d+(,\d+)*", train.device):
        faults.append(f"train.device: expected cpu, auto, gpu:0 or gpu:0,1, got {train.device!r}")
    if train.precision == "bfloat16" and not train.accelerate:
        faults.append("train.precision: bfloat16 is a matter of the fast kernels; it needs train.accelerate: true")
    if train.batch_norm == "frozen" and config.model.pretrained == "none":
        faults.append("train.batch_norm: random weights have no statistics that could stay; leave it at batch")
    if train.freeze is not None and train.transfer != "full":
        faults.append(f"train.transfer: {train.transfer} says itself what is frozen; leave out train.freeze")
    if train.progressive_from and train.transfer == "head":
        faults.append("train.transfer: head computes features once, at one size; leave out train.progressive_from")
    if train.progressive_from and train.freeze:
        faults.append("train.freeze: features are computed once, at one size; leave out train.progressive_from")
    if config.distill.teacher is not None:
        _check_distillation(config, faults)
    elif config.data.unlabelled is not None:
        faults.append("data.unlabelled: pictures without labels need distill.teacher")
    if train.warmup_epochs > train.epochs:
        faults.append(
            f"train.warmup_epochs: expected at most train.epochs ({train.epochs}), got {train.warmup_epochs:g}"
        )
    if split.group is not None:
        try:
            re.compile(split.group)
        except (re.error, OverflowError, RecursionError) as error:
            faults.append(f"split.group: expected a regular expression, got {split.group!r} ({error})")


def _check_distillation(config: Config, faults: list[str]) -> None:
    distill = config.distill
    if not distill.soft + distill.features + distill.hard:
        faults.append("distill: soft, features and hard are all 0; nothing would be learnt")
    if config.train.freeze is not None:
        faults.append("distill.teacher: train.freeze trains on features of its own; leave one of them out")
    if config.train.transfer in ("stages", "head"):
        faults.append("distill.teacher: train.transfer is for learning from labels; leave one of them out")
    if config.train.class_weights is not None:
        faults.append("distill.teacher: train.class_weights weighs labels, not a teacher's; leave one of them out")


def _check_paths(config: Config, must_exist: Sequence[str], faults: list[str]) -> None:
    if "data.dir" in must_exist and not os.path.isdir(user_path(config.data.dir)):  # noqa: PTH112 - never raises
        faults.append(
            f"data.dir: no such folder {config.data.dir!r} (looked for {user_path(config.data.dir).absolute()})"
        )
    if "data.dir" in must_exist:
        for name in ("train_list", "val_list", "test_list", "labels", "extra_list"):
            value = getattr(config.data, name)
            if value is not None and not os.path.isfile(user_path(value)):  # noqa: PTH113
                faults.append(f"data.{name}: no such file {value!r}")
        unlabelled = config.data.unlabelled
        if unlabelled is not None and not os.path.isdir(user_path(unlabelled)):  # noqa: PTH112
            faults.append(f"data.unlabelled: no such folder {unlabelled!r}")
    if "model.pretrained" in must_exist:
        from pplc_cli.models.weights.pretrained import SOURCES

        pretrained = config.model.pretrained
        if pretrained not in SOURCES and not os.path.exists(user_path(pretrained)):  # noqa: PTH110
            faults.append(
                f"model.pretrained: expected {', '.join(SOURCES)} or a weights file, "
                f"got {pretrained!r}, which is not there"
            )
