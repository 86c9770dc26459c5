"""The sections of the configuration: every key with its type, default, limits and meaning."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, Union

from pplc_cli.base.schema import option
from pplc_cli.data.settings import MAX_SEED, MAX_THREADS, DataConfig, SplitConfig
from pplc_cli.data.transforms.limits import MAX_SIDE
from pplc_cli.models.options import ModelConfig

# A test compares these with the engines of pplc_cli.predict.engines.open.
ENGINES = ("paddle", "pplc", "onnxruntime", "openvino", "paddlex")
PRECISIONS = ("float32", "bfloat16", "int8")

# Bounds far above what is sensible, so that a slip of the finger is an error and not a full memory or a hang.
MAX_EPOCHS = 1_000_000
MAX_BATCH = 65_536  # twice the largest batches that are published for ImageNet
AUTO_BASE = 32  # images per step to which the learning rate refers with batch_size: auto
MAX_RATE = 1000
MAX_WEIGHT = 1_000_000  # of a class or of a part of the loss; float32 keeps its digits
MAX_VIEWS = 1000  # each view of each image is kept
MAX_TRIALS = 100_000
MAX_MINUTES = 1_000_000
MAX_IMAGES = 10_000  # they are in memory together

DEFAULT_TRAIN_TRANSFORMS = [{"RandomCrop": {"crop_size": 224}}, "RandomHorizontalFlip", "Normalize"]
DEFAULT_EVAL_TRANSFORMS = [
    {"ResizeByShort": {"short_size": 256}},
    {"CenterCrop": {"crop_size": 224}},
    "Normalize",
]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training recipe. Names and defaults follow PaddleX 2 for the keys that it has."""

    epochs: int = option(10, at_least=1, at_most=MAX_EPOCHS, help="Passes over the training list.")
    batch_size: Union[int, str] = option(
        32,
        choices=("auto",),
        at_least=1,
        at_most=MAX_BATCH,
        help="Images per training step, in all processes together; `auto`: measured on this machine.",
    )
    learning_rate: float = option(
        0.025,
        more_than=0,
        at_most=MAX_RATE,
        help="Learning rate after warm-up and before decay; scale it with `batch_size`. With `batch_size: auto`, that "
        "for batches of 32.",
    )
    optimizer: str = option(
        "momentum",
        choices=("momentum", "sgd", "adam", "adamw"),
        help="Optimizer; `adam` and `adamw` need a learning rate of about 0.001.",
    )
    momentum: float = option(0.9, at_least=0, below=1, help="Momentum of the optimizer `momentum`.")
    weight_decay: float = option(1e-4, at_least=0, at_most=MAX_RATE, help="Weight decay; not applied to batch norm.")
    schedule: str = option(
        "piecewise",
        choices=("piecewise", "cosine", "constant"),
        help="How the learning rate falls: in steps at `lr_decay_epochs`, along a cosine to zero, or not at all.",
    )
    lr_decay_epochs: list[int] = option(
        [30, 60, 90],
        at_least=1,
        at_most=MAX_EPOCHS,
        help="Epochs at which `piecewise` lowers the learning rate, in rising order.",
    )
    lr_decay_gamma: float = option(
        0.1,
        more_than=0,
        at_most=1,
        help="Factor by which `piecewise` multiplies the learning rate at each of `lr_decay_epochs`.",
    )
    warmup_epochs: float = option(
        0.0, at_least=0, at_most=MAX_EPOCHS, help="Epochs in which the learning rate rises linearly; at most `epochs`."
    )
    warmup_start_lr: float = option(
        0.0, at_least=0, at_most=MAX_RATE, help="Learning rate at the start of the warm-up."
    )
    label_smoothing: float = option(
        0.0, at_least=0, below=1, help="Share of each target that is spread evenly over all classes."
    )
    ema_decay: float = option(
        0.0,
        at_least=0,
        below=1,
        help="Decay of the moving average of the weights, which is then validated and saved; 0: no average.",
    )
    average: str = option(
        "auto",
        choices=("auto", "all", "none"),
        help="`all`: the mean of the weights after all steps, with those at the start, is validated and saved; `auto`: "
        "`all` if training starts with a linear probe and `ema_decay` is 0, otherwise `none`.",
    )
    clip_grad_norm: float = option(
        0.0,
        at_least=0,
        at_most=MAX_WEIGHT,
        help="Largest norm of all gradients together; 0: gradients are not clipped.",
    )
    early_stop: bool = option(
        False,
        help="Whether training stops after `early_stop_patience` epochs without a better validation top-1 accuracy.",
    )
    early_stop_patience: int = option(
        5, at_least=1, at_most=MAX_EPOCHS, help="Epochs without improvement after which `early_stop` stops."
    )
    class_weights: Union[str, dict[str, float], None] = option(
        None,
        choices=("balanced",),
        more_than=0,
        at_most=MAX_WEIGHT,
        help="Weights of the classes in the loss: `balanced` (the inverse of their numbers of images) or "
        "`{class: weight}` (1 for classes that are not named); null: all equal.",
    )
    seed: int = option(0, at_least=0, at_most=MAX_SEED, help="Random seed; the same seed repeats the run.")
    threads: Optional[int] = option(
        None, at_least=1, at_most=MAX_THREADS, help="Number of CPU threads; null: physical cores."
    )
    device: str = option("cpu", help="`cpu`, `auto`, `gpu:0`, or `gpu:0,1` for one process on each of these GPUs.")
    accelerate: bool = option(True, help="Train through pplc's own kernels on CPUs that support them; false: Paddle's.")
    precision: str = option(
        "float32",
        choices=("float32", "bfloat16"),
        help="`bfloat16` is faster on CPUs with AVX-512 BF16; it requires `accelerate: true`.",
    )
    batch_norm: str = option(
        "auto",
        choices=("batch", "frozen", "auto"),
        help="How the statistics of pretrained batch norm change: `auto` averages over as many images as with batches "
        "of 32, and keeps them if training starts with a linear probe on fewer than 1,000 images; `batch` follows the "
        "usual rule, `frozen` keeps them.",
    )
    sync_batch_norm: bool = option(
        False, help="With several processes, compute batch norm over the whole batch instead of each process's share."
    )
    progressive_from: Optional[int] = option(
        None,
        at_least=32,
        at_most=MAX_SIDE,
        help="Side of the images in the first epoch, in pixels; null: full size in all epochs.",
    )
    progressive_share: float = option(
        0.75, more_than=0, at_most=1, help="Share of the epochs in which the images grow to full size."
    )
    transfer: str = option(
        "auto",
        choices=("full", "stages", "head", "auto"),
        help="How pretrained weights are adapted: `full` trains everything at one learning rate, `stages` starts with "
        "a linear probe and trains each stage at its own rate, `head` trains the classifier alone, `auto` chooses.",
    )
    freeze: Optional[str] = option(
        None,
        help="Last stage that stays fixed (`conv1`, `blocks2`, ..., `blocks6` in PP-LCNet), or `head`: all but the "
        "classifier; null: none.",
    )
    freeze_views: int = option(
        4,
        at_least=1,
        at_most=MAX_VIEWS,
        help="With fixed stages: number of augmented versions of each image; their features are computed once.",
    )
    log_interval_steps: int = option(
        10, at_least=1, at_most=1_000_000_000, help="Steps between two lines of the training log."
    )
    visualdl: bool = option(False, help="Write logs for VisualDL into the run's folder; needs `pplc[visualdl]`.")
    transforms: list[Any] = option(
        DEFAULT_TRAIN_TRANSFORMS,
        help="[Transforms](transforms.md) of the training images, in order, or "
        "[your own](../training.md#networks-and-transforms-of-your-own).",
    )

    @property
    def images_per_step(self) -> int:
        """The batch size of a run, which is a number: ``auto`` is replaced before the first step."""
        assert isinstance(self.batch_size, int)
        return self.batch_size

    def with_batch_size(self, batch: int) -> TrainConfig:
        """Replace ``batch_size: auto``; the learning rate follows the batch, with Adam its square root."""
        ratio = batch / AUTO_BASE
        factor = ratio**0.5 if self.optimizer in ("adam", "adamw") else ratio
        rate = float(f"{self.learning_rate * factor:.6g}")
        return dataclasses.replace(self, batch_size=batch, learning_rate=rate)


OWN_TEACHER = "auto"  # value of ``distill.teacher``


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Distillation: training on the outputs of another network, the teacher."""

    teacher: Optional[str] = option(
        None,
        help="A run, an exported folder, an ONNX file or the name of a network; `auto`: the best network with ImageNet "
        "weights on this machine, fitted to the images first; null: no distillation.",
    )
    weights: Optional[str] = option(
        None,
        help="Weights of the teacher if it is the name of a network, as for `model.pretrained`; null: its best "
        "official ones.",
    )
    divergence: str = option(
        "js", choices=("js", "kl"), help="Loss on the probabilities: `js` (Jensen-Shannon) or `kl` (Kullback-Leibler)."
    )
    temperature: float = option(
        1.0, more_than=0, at_most=1000, help="Values above 1 soften the probabilities that are compared."
    )
    soft: float = option(1.0, at_least=0, at_most=MAX_WEIGHT, help="Weight of the loss on the teacher's probabilities.")
    features: float = option(
        0.0,
        at_least=0,
        at_most=MAX_WEIGHT,
        help="Weight of the loss on the teacher's features: the values before its last layer.",
    )
    hard: float = option(
        0.0, at_least=0, at_most=MAX_WEIGHT, help="Weight of the cross-entropy with the labels of the lists."
    )
    views: int = option(
        4,
        at_least=1,
        at_most=MAX_VIEWS,
        help="Augmented versions of each image; the teacher classifies each of them once.",
    )
    cache: Optional[str] = option(
        None, help="Folder for the stored outputs of the teacher; null: `teacher` in the run's folder."
    )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How a trained network is evaluated."""

    batch_size: int = option(32, at_least=1, at_most=MAX_BATCH, help="Images per batch.")
    split: Optional[str] = option(
        None,
        choices=("train", "val", "test"),
        help="List on which `pplc eval` evaluates; null: the test list, or the validation list if there is none.",
    )
    worst: int = option(
        24, at_least=0, at_most=1000, help="Number of mistakes shown in `mistakes.png`, the most confident ones."
    )
    transforms: list[Any] = option(
        DEFAULT_EVAL_TRANSFORMS,
        help="[Transforms](transforms.md) of the images in evaluation and prediction, in order; none may be random.",
    )


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """How closely the exported model must follow the trained network."""

    tolerance: float = option(
        1e-4,
        more_than=0,
        at_most=1,
        help="Largest allowed difference between a probability of the exported model and of the trained network.",
    )
    images: int = option(64, at_least=1, at_most=MAX_IMAGES, help="Number of images whose probabilities are compared.")
    max_accuracy_loss: float = option(
        0.01, at_least=0, below=1, help="Largest allowed loss of top-1 accuracy from int8 or bfloat16, as a share."
    )
    calibration_images: int = option(
        128,
        at_least=1,
        at_most=MAX_IMAGES,
        help="Number of training images from which int8 takes the ranges of the activations.",
    )
    model_name: Optional[str] = option(
        None, help="Name of the network that the exported folder gives to PaddleX; null: PaddleX's own name for it."
    )


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """How the exported model is run."""

    engine: str = option(
        "default",
        choices=("default", "auto", *ENGINES),
        help="The engine that runs the network, or `default` (`pplc` if the export was checked with it and its kernels "
        "are compiled, otherwise `paddle`), or `auto` (the fastest one installed).",
    )
    precision: str = option("float32", choices=PRECISIONS, help="Precision of the computation.")
    mkldnn: bool = option(True, help="Use oneDNN in the engine `paddle`.")
    threads: Optional[int] = option(
        None, at_least=1, at_most=MAX_THREADS, help="Number of CPU threads; null: physical cores."
    )
    workers: Optional[int] = option(
        None,
        at_least=1,
        at_most=MAX_THREADS,
        help="Batches processed in parallel if there are more images than one batch; null: as many as `threads`.",
    )
    batch_size: Optional[int] = option(None, at_least=1, at_most=MAX_BATCH, help="Images per batch; null: 16.")
    top_k: int = option(1, at_least=1, at_most=100_000, help="Number of labels per image.")
    calibrated: bool = option(
        True,
        help="Give scores that say how often the answer is right: the logits are divided by the temperature that "
        "`pplc export` fits on the validation images. false: the network's softmax, as PaddleX gives it.",
    )
    unknown: bool = option(False, help="Answer `unknown` where an image is unlike all training images.")
    coverage: Optional[float] = option(
        None,
        more_than=0,
        below=1,
        help="Also give a set of labels that holds the right one in at least this share of images; null: none.",
    )


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """What `pplc tune` searches, and for how long."""

    space: Optional[dict[str, Any]] = option(
        None,
        help="Values to try by key: a list of choices, or a range as in `{low: 0.001, high: 0.1, log: true}`. Beside "
        "the keys of this page: `image_size` in pixels and `augmentation` (`own`, `colour`, `strong`). null: networks, "
        "sizes and recipe that suit this machine.",
    )
    trials: int = option(30, at_least=1, at_most=MAX_TRIALS, help="Largest number of short trainings.")
    minutes: Optional[float] = option(
        None, more_than=0, at_most=MAX_MINUTES, help="Largest duration of the whole search; null: no limit."
    )
    max_ms: Optional[float] = option(
        None,
        more_than=0,
        at_most=MAX_MINUTES,
        help="Longest time for one image on this machine, in milliseconds; null: no limit.",
    )
    folds: Optional[int] = option(
        None,
        at_least=2,
        at_most=20,
        help="Judge by the out-of-fold accuracy of so many folds instead of the validation list; takes as many times "
        "as long.",
    )
    pruner: str = option(
        "median",
        choices=("median", "halving", "none"),
        help="Which trials stop early: those below the `median` of the others at the same epoch, all but the best part "
        "at each of some epochs (successive `halving`), or `none`.",
    )
    short: float = option(
        0.5, more_than=0, at_most=1, help="Share of `train.epochs` that the short trainings have; the best get all."
    )
    seed: int = option(0, at_least=0, at_most=MAX_SEED, help="Random seed of the search.")


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration."""

    data: DataConfig = option()
    output: str = option(help="The run's folder.")
    split: SplitConfig = option(SplitConfig())
    model: ModelConfig = option(ModelConfig())
    train: TrainConfig = option(TrainConfig())
    distill: DistillConfig = option(DistillConfig())
    eval: EvalConfig = option(EvalConfig())
    export: ExportConfig = option(ExportConfig())
    predict: PredictConfig = option(PredictConfig())
    tune: TuneConfig = option(TuneConfig())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that reads back as an equal configuration."""
        return dataclasses.asdict(self)
