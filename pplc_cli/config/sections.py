"""The one YAML that drives every step: its vocabulary, and reading it strictly."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, Union

from pplc_cli.base.schema import option
from pplc_cli.data.settings import DataConfig, SplitConfig
from pplc_cli.models.options import ModelConfig

# A test holds these to the engines of pplc_cli.predict.engines.open.
ENGINES = ("paddle", "pplc", "onnxruntime", "openvino", "paddlex")
PRECISIONS = ("float32", "bfloat16", "int8")

DEFAULT_TRAIN_TRANSFORMS = [{"RandomCrop": {"crop_size": 224}}, "RandomHorizontalFlip", "Normalize"]
DEFAULT_EVAL_TRANSFORMS = [
    {"ResizeByShort": {"short_size": 256}},
    {"CenterCrop": {"crop_size": 224}},
    "Normalize",
]


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
    views: int = option(4, at_least=1)  # augmented versions of each image that the teacher sees
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
    calibration_images: int = option(128, at_least=1)  # training images that int8's ranges are fitted to
    model_name: Optional[str] = option(None)  # null: the name that PaddleX has for the network


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """How the exported model is run."""

    engine: str = option("default", choices=("default", "auto", *ENGINES))
    precision: str = option("float32", choices=PRECISIONS)
    mkldnn: bool = option(True)
    threads: Optional[int] = option(None, at_least=1)  # null: physical cores
    workers: Optional[int] = option(None, at_least=1)  # of many images at a time; null: as many as threads
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
