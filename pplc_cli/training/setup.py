"""What training starts from: images, network, optimiser, and where an earlier part of the run stopped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from pplc_cli.base.errors import CheckpointError, DataError, TrainError
from pplc_cli.base.files import user_path
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.sections import Config
from pplc_cli.data.image_cache import ImageCache
from pplc_cli.data.lists import (
    Sample,
    count_by_class,
    find_copies,
    read_extra,
    read_labels,
    read_part,
    require_part,
    unlabelled,
)
from pplc_cli.data.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.weights.pretrained import has_weights, load_pretrained
from pplc_cli.training.interrupts import Interrupts
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.runs.resume import check_folder, clear_folder, fingerprint_of, read_state
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.world import init_world, is_main_process, set_device

if TYPE_CHECKING:
    from pplc_cli.training.distill.distillation import Distillation
    from pplc_cli.training.transfer.frozen import FrozenPart


@dataclasses.dataclass
class Progress:
    """What a checkpoint holds besides arrays."""

    epoch: int = 0
    best: Optional[dict[str, Any]] = None
    stale_epochs: int = 0


class Preparation:
    """All that a run needs before its first step.

    Attributes:
        config: of the run.
        reporter: told of progress.
        run: the folder.
        labels: the classes.
        train_samples, val_samples: the images.
        world: this process among those that train together.
        network: what is saved.
        trained: what is called with a batch: the network, or the stages of it that learn.
        learners: all whose parameters change.
        distillation: a teacher's part in it; None: there is no teacher.
        frozen: the stages that stay as they are; None: all learn.
        fixed_norms: layers that stay in evaluation.
        probed: whether the classifier was fitted to the features of the weights that the network started from.
        progress: where the run stands.
    """

    def __init__(self, config: Config, resume: bool, force: bool, reporter: Reporter) -> None:
        """Args: as :func:`pplc_cli.training.train.train` has them."""
        self.config, self.reporter = config, reporter
        self.began = time.perf_counter()
        self.run = RunFolder(user_path(config.output))
        self.labels = read_labels(config.data)
        self.val_samples = require_part(config.data, "val", self.labels)
        self.train_samples = self._samples()
        self.fingerprint = fingerprint_of(self.labels, self.train_samples, self.val_samples)
        state = None
        if is_main_process():  # before Paddle is loaded: what is wrong shows at once
            state = check_folder(self.run, config, self.fingerprint, resume=resume, force=force, reporter=self.reporter)

        self.paddle = load_paddle(config.train.threads)
        set_device(config.train.device)
        self.world = init_world()
        state = self._agree(state)
        from pplc_cli.training.optim import MovingAverage, build_optimizer

        self.spec = find_network(config.model.name)
        self.paddle.seed(config.train.seed)
        self.network = build_network(
            self.spec.name, len(self.labels), dropout=config.model.dropout, options=config.model.options
        )
        if state is None and self.world.rank == 0:
            self._load_pretrained()
        self.world.broadcast(self.network.state_dict().values())
        self.train_loader, self.val_loader = self.train_images, self.val_images = self._loaders()
        self.full_size = self.train_loader.pipeline.size
        if config.train.progressive_from is not None and config.train.progressive_from >= min(self.full_size):
            raise TrainError(
                f"train.progressive_from: {config.train.progressive_from} is not smaller than the images that "
                f"train.transforms make, {self.full_size[1]} x {self.full_size[0]}"
            )
        self.transfer = self._choose_transfer()
        self.frozen: Optional[FrozenPart] = None
        try:
            self.trained = self._freeze("head" if self.transfer == "head" else config.train.freeze)
        except TrainError as error:
            if config.train.transfer != "auto":
                raise
            self.transfer, self.trained = "stages", self.network
            self.reporter.note(f"train.transfer: stages after all: {error}")
        self.fixed_norms = self._fix_norms()
        self.distillation = self._distil()
        self.learners = self.network if self.distillation is None else self.distillation.learners(self.network)
        self.optimizer = build_optimizer(self.learners, config.train, self._rate_factors())
        self.average = MovingAverage(self.network, config.train.ema_decay) if config.train.ema_decay else None
        self.progress = Progress() if state is None else self._restore(state)
        self._accelerate()
        self.class_weights = self._class_weights()
        self.probed = state is None and self.transfer in ("stages", "head") and self._probe()
        open_visualdl = self._visualdl()
        if self.world.rank == 0:  # nothing is wrong: the run that was there may go
            clear_folder(self.run, config, state)
        self.visualdl = open_visualdl()
        self.interrupts = Interrupts()

    def _samples(self) -> list[Sample]:
        """What is learnt from; images without labels have -1."""
        data = self.config.data
        read = require_part if data.unlabelled is None else read_part
        samples = list(read(data, "train", self.labels) or [])
        more: list[Sample] = []
        if data.extra_list is not None:
            more += read_extra(user_path(data.extra_list), self.labels)
        if data.unlabelled is not None:
            more += unlabelled(user_path(data.unlabelled))
        if not more:
            return samples
        # What is measured on must not be learnt from, and what is learnt from counts once.
        listed = [*samples, *self.val_samples, *(read_part(data, "test", self.labels) or [])]
        copies = find_copies((sample.path for sample in more), (sample.path for sample in listed))
        new = [sample for sample in more if sample.path not in copies]
        if len(new) < len(more) and is_main_process():
            self.reporter.note(f"{len(more) - len(new):,} images are left out: the data set's own lists have them")
        return samples + new

    def _distil(self) -> Optional[Distillation]:
        """What the teacher says of all images, and the loss that follows from it."""
        if self.config.distill.teacher is None:
            return None
        if self.world.size > 1:
            raise TrainError("distill.teacher: distillation runs in one process; leave out --nproc and --nnodes")
        from pplc_cli.training.distill.distillation import build_distillation

        folder = user_path(self.config.distill.cache or self.run.folder / "teacher")
        return build_distillation(self.config, self.network, self.labels, self.train_loader, folder, self.reporter)

    def _agree(self, state: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
        """What process 0 starts from, known to all; each reads the checkpoint itself."""
        epoch, fingerprint = self.world.broadcast_object([state["epoch"] if state else None, self.fingerprint])
        if fingerprint != self.fingerprint:
            raise TrainError(
                f"process {self.world.rank}: the lists in {self.config.data.dir} are not those of process 0; "
                "every machine needs the same data set"
            )
        if state is None and epoch is not None:
            state = read_state(self.run)
            if state is None or state["epoch"] != epoch:
                raise TrainError(
                    f"process {self.world.rank}: {self.run.folder} does not hold epoch {epoch} to go on from; "
                    "every machine needs the run's folder"
                )
        return state

    def _load_pretrained(self) -> None:
        source = self.config.model.pretrained
        if source == "none":
            if self.spec.pretrained:
                self.reporter.note(f"{self.config.model.name} asks for SSLD weights, but model.pretrained is none")
            return
        if source == "imagenet":
            source = self.spec.pretrained or source
        if not has_weights(self.spec, source):
            self.reporter.note(f"there are no weights of {self.spec.name}; starting from random ones")
            return
        path, replaced = load_pretrained(
            self.network, self.spec, source, progress=self.reporter.download, note=self.reporter.note
        )
        remark = f"; its classifier is replaced by a new one for {len(self.labels)} classes" if replaced else ""
        self.reporter.note(f"starting from {path}{remark}")

    def _choose_transfer(self) -> str:
        """How the weights that it starts from are fitted to the images."""
        from pplc_cli.training.transfer.policy import choose

        wanted = self.config.train.transfer
        pretrained = self._pretrained()
        if not pretrained and (wanted in ("head", "stages") or self.config.train.batch_norm == "frozen"):
            key = f"transfer: {wanted}" if wanted in ("head", "stages") else "batch_norm: frozen"
            raise TrainError(f"train.{key} needs weights that know something, and {self.spec.name} starts from none")
        if wanted != "auto":
            return wanted
        if self.config.distill.teacher is not None:
            return "full"  # what a teacher says is enough to learn from
        known = pretrained and hasattr(self.network, "named_stages")
        chosen, why = choose(len(self.train_samples), len(self.labels), known)
        if chosen == "head" and self.config.train.progressive_from:
            chosen, why = "stages", "train.progressive_from needs stages that learn"
        self.reporter.note(f"train.transfer: {chosen}, since {why}")
        return chosen

    def _pretrained(self) -> bool:
        return has_weights(self.spec, self.config.model.pretrained)

    def _fix_norms(self) -> list[Any]:
        """Batch norms whose statistics and scales stay those of the pretrained weights; others may change slowly."""
        from pplc_cli.training.transfer.policy import scale_bn_momentum

        wanted = self.config.train.batch_norm
        layers = [layer for layer in self.network.sublayers() if isinstance(layer, self.paddle.nn.BatchNorm2D)]
        if wanted == "frozen":
            for layer in layers:
                for parameter in layer.parameters():
                    parameter.stop_gradient = True
            return layers
        if wanted == "auto" and self._pretrained():
            together = 1 if self.config.train.sync_batch_norm else self.world.size
            scale_bn_momentum(layers, self.config.train.batch_size // together)
        return []

    def _rate_factors(self) -> dict[str, float]:
        """Of the learning rate, by parameter name, where layers learn at different rates."""
        if self.transfer != "stages":
            return {}
        from pplc_cli.training.transfer.policy import layerwise_lr_scales

        if not hasattr(self.network, "named_stages"):
            raise TrainError(f"train.transfer: {self.spec.name} has no stages to tell apart; set it to full")
        return layerwise_lr_scales(self.network, self.full_size)

    def _probe(self) -> bool:
        """Fit the classifier to the features of the weights that it starts from; whether that was possible."""
        from pplc_cli.training.transfer.probe import Probe

        layer = self.network
        for name in self.spec.classifier.split("."):
            layer = getattr(layer, name)
        # One process does it for all: they have the same images.
        reason = Probe(self.config, self.network, layer, self.frozen).fit(self.train_images, self.class_weights)
        (reason,) = self.world.broadcast_object([reason])
        if reason is not None:
            self.reporter.note(f"no linear probe: {reason}")
            return False
        self.world.broadcast(layer.parameters())
        if self.average is not None:
            from pplc_cli.training.optim import MovingAverage

            self.average = MovingAverage(self.network, self.average.decay)
        return True

    def _freeze(self, last: Optional[str]) -> Any:
        """The network that learns: the whole one, or its late stages, with loaders of features before them."""
        config = self.config.train
        if last is None:
            return self.network
        from pplc_cli.training.transfer.frozen import FeatureLoader, FrozenPart

        part = FrozenPart(self.network, last, self.spec.name, self.train_loader.pipeline.size)
        cache = self.train_loader.cache  # features and images share its budget
        validation = FeatureLoader(self.val_loader, part, 1, cache.budget)
        cache.budget -= validation.bytes
        training = FeatureLoader(self.train_loader, part, config.freeze_views, cache.budget)
        cache.budget -= training.bytes
        self.train_loader, self.val_loader, self.frozen = training, validation, part
        return part.tail

    def _accelerate(self) -> None:
        from pplc_cli.kernels import accelerate, compiled, has_bfloat16, unsupported

        synced = self.world.size > 1 and self.config.train.sync_batch_norm
        wanted = self.config.train.accelerate and self.paddle.get_device() == "cpu"
        reason = unsupported() if wanted else None
        if reason is not None:
            self.reporter.note(f"training with Paddle's own, slower kernels: {reason}")
        if not wanted or reason is not None:
            if synced:
                self.reporter.note("train.sync_batch_norm has no effect: it needs the fast kernels (train.accelerate)")
            return
        if not compiled():
            self.reporter.note("compiling the fast kernels for this CPU, once; it takes about 20 seconds")
        bfloat16 = self.config.train.precision == "bfloat16"
        if bfloat16 and not has_bfloat16():
            self.reporter.note("this CPU has no bfloat16 products; training in float32")
        accelerate(self.trained, self.config.train.threads, self.world.all_reduce if synced else None, bfloat16)
        for front in (self.frozen and self.frozen.front, self.distillation and self.distillation.front):
            if front is not None:
                accelerate(front, self.config.train.threads, bfloat16=bfloat16)

    def _restore(self, state: dict[str, Any]) -> Progress:
        from pplc_cli.models.weights.fit import fit_weights
        from pplc_cli.training.optim import restore_optimizer

        last = self.run.last
        weights = checkpoint.load_arrays(last, "model")
        optimizer = checkpoint.load_arrays(last, "optimizer")
        averaged = checkpoint.load_arrays(last, "ema")
        if weights is None or optimizer is None or (self.average is not None and averaged is None):
            raise CheckpointError(f"{last} is not whole; start anew with --force")
        fit_weights(self.network, weights, str(last))
        if self.distillation is not None and self.distillation.map is not None:
            mapped = checkpoint.load_arrays(last, "distill")
            if mapped is None:
                raise CheckpointError(f"{last} is not whole; start anew with --force")
            fit_weights(self.distillation.map, mapped, str(last))
        restore_optimizer(self.optimizer, self.learners, optimizer)
        if self.average is not None and averaged is not None:
            self.average.values = {key: self.paddle.to_tensor(value) for key, value in averaged.items()}
        self.reporter.note(f"going on after epoch {state['epoch']}")
        return Progress(state["epoch"], state["best"], state["stale_epochs"])

    def _loaders(self) -> tuple[Any, Any]:
        data, train, world = self.config.data, self.config.train, self.world
        cache = ImageCache(data.cache_mb)
        training = Loader(
            self.train_samples,
            Pipeline(train.transforms, training=True),
            train.batch_size,
            len(self.labels),
            cache=cache,
            workers=data.workers,
            shuffle=True,
            seed=train.seed,
            label_smoothing=train.label_smoothing,
            share=(world.rank, world.size),
        )
        validation = Loader(
            self.val_samples[world.rank :: world.size],
            Pipeline(self.config.eval.transforms, training=False),
            self.config.eval.batch_size,
            len(self.labels),
            cache=cache,
            workers=data.workers,
        )
        return training, validation

    def _class_weights(self) -> Optional[np.ndarray]:
        """float32 (classes,), or None for equal weights."""
        wanted = self.config.train.class_weights
        if wanted is None:
            return None
        counts = count_by_class(self.train_samples, len(self.labels))
        if isinstance(wanted, str):
            return np.array([len(self.train_samples) / (len(counts) * max(1, n)) for n in counts], np.float32)
        unknown = sorted(set(wanted) - set(self.labels))
        if unknown:
            raise DataError(f"train.class_weights: {unknown[0]!r} is no class; there are {', '.join(self.labels)}")
        return np.array([wanted.get(label, 1.0) for label in self.labels], np.float32)

    def _visualdl(self) -> Callable[[], Any]:
        """What opens VisualDL's log, or gives None where none is wanted."""
        if not self.config.train.visualdl or self.world.rank:
            return lambda: None
        try:
            from visualdl import LogWriter
        except ImportError:
            raise TrainError("train.visualdl needs VisualDL; install it with: pip install 'pplc[visualdl]'") from None
        return lambda: LogWriter(logdir=str(self.run.visualdl), display_name=self.run.folder.name)
