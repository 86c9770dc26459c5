"""Training, from a configuration to a run's folder. Import :func:`pplc_cli.runtime.load_paddle` comes first."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from . import __version__, checkpoint
from .config import Config
from .data.lists import Sample, count_by_class, read_extra, read_labels, read_part, require_part, unlabelled
from .data.loader import Batch, ImageCache, Loader
from .data.resizing import scaled, side_at
from .data.transforms import Pipeline
from .distributed import is_first, join, set_device
from .errors import CheckpointError, DataError, PplcError, TrainError
from .files import user_path
from .interrupts import Interrupts
from .metrics import Scores
from .models.registry import build_network, find_network
from .models.weights import SOURCES, load_pretrained
from .reporter import Reporter, TrainResult
from .resume import check_folder, clear_folder, fingerprint_of, read_state
from .run import Run
from .runtime import as_tensor, load_paddle

if TYPE_CHECKING:
    from .distillation import Distillation
    from .frozen import FrozenPart


@dataclasses.dataclass
class _Progress:
    """What a checkpoint holds besides arrays."""

    epoch: int = 0
    best: Optional[dict[str, Any]] = None
    stale_epochs: int = 0


def train(
    config: Config, *, resume: bool = False, force: bool = False, reporter: Optional[Reporter] = None
) -> TrainResult:
    """Train the network of a configuration.

    Everything random follows from ``train.seed`` and the number of the epoch, so a run stopped at any moment and
    resumed ends with the same weights, to the bit, as one that never stopped (on the same machine and thread count).

    Args:
        config: what to do.
        resume: go on after the last whole epoch of ``config.output``; a run that never got that far starts anew.
        force: replace a run that is there.
        reporter: told of progress.

    Raises:
        PplcError: anything a user can mend; the last good checkpoint is intact.
    """
    return _Training(config, resume, force, reporter or Reporter()).run_all()


class _Training:
    def __init__(self, config: Config, resume: bool, force: bool, reporter: Reporter) -> None:
        self.config, self.reporter = config, reporter
        self.began = time.perf_counter()
        self.run = Run(user_path(config.output))
        self.labels = read_labels(config.data)
        self.train_samples = self._samples()
        self.val_samples = require_part(config.data, "val", self.labels)
        self.fingerprint = fingerprint_of(self.labels, self.train_samples, self.val_samples)
        state = None
        if is_first():  # before Paddle is loaded: what is wrong shows at once
            state = check_folder(self.run, config, self.fingerprint, resume=resume, force=force, reporter=self.reporter)

        self.paddle = load_paddle(config.train.threads)
        set_device(config.train.device)
        self.world = join()
        state = self._agree(state)
        from .optim import MovingAverage, build_optimizer

        self.spec = find_network(config.model.name)
        self.paddle.seed(config.train.seed)
        self.network = build_network(
            self.spec.name, len(self.labels), dropout=config.model.dropout, options=config.model.options
        )
        if state is None and self.world.rank == 0:
            self._load_pretrained()
        self.world.share_tensors(self.network.state_dict().values())
        self.train_loader, self.val_loader = self.train_pictures, self.val_pictures = self._loaders()
        self.full_size = self.train_loader.pipeline.size
        if config.train.progressive_from is not None and config.train.progressive_from >= min(self.full_size):
            raise TrainError(
                f"train.progressive_from: {config.train.progressive_from} is not smaller than the pictures that "
                f"train.transforms make, {self.full_size[1]} x {self.full_size[0]}"
            )
        self.transfer = self._choose_transfer()
        self.frozen: Optional[FrozenPart] = None
        self.trained = self._freeze("head" if self.transfer == "head" else config.train.freeze)
        self.distillation = self._distil()
        self.learners = self.network if self.distillation is None else self.distillation.learners(self.network)
        self.optimizer = build_optimizer(self.learners, config.train, self._rate_factors())
        self.average = MovingAverage(self.network, config.train.ema_decay) if config.train.ema_decay else None
        self.progress = _Progress() if state is None else self._restore(state)
        self._accelerate()
        self.probed = state is None and self.transfer in ("stages", "head") and self._probe()
        self.class_weights = self._class_weights()
        open_visualdl = self._visualdl()
        if self.world.rank == 0:  # nothing is wrong: the run that was there may go
            clear_folder(self.run, config, state)
        self.visualdl = open_visualdl()
        self.interrupts = Interrupts()

    # -- before the first step ---------------------------------------------------------------------------------------

    def _samples(self) -> list[Sample]:
        """What is learnt from; pictures without labels have -1."""
        data = self.config.data
        read = require_part if data.unlabelled is None else read_part
        samples = list(read(data, "train", self.labels) or [])
        if data.extra_list is not None:
            samples += read_extra(user_path(data.extra_list), self.labels)
        if data.unlabelled is not None:
            samples += unlabelled(user_path(data.unlabelled))
        return samples

    def _distil(self) -> Optional[Distillation]:
        """What the teacher says of all pictures, and the loss that follows from it."""
        if self.config.distill.teacher is None:
            return None
        if self.world.size > 1:
            raise TrainError("distill.teacher: distillation runs in one process; leave out --nproc and --nnodes")
        from .distillation import distil

        folder = user_path(self.config.distill.cache or self.run.folder / "teacher")
        return distil(self.config, self.network, self.labels, self.train_loader, folder, self.reporter)

    def _agree(self, state: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
        """What process 0 starts from, known to all; each reads the checkpoint itself."""
        epoch, fingerprint = self.world.tell([state["epoch"] if state else None, self.fingerprint])
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
        if source in SOURCES:
            source = self.spec.pretrained or source
        path, replaced = load_pretrained(
            self.network, self.spec, source, progress=self.reporter.download, note=self.reporter.note
        )
        remark = f"; its classifier is replaced by a new one for {len(self.labels)} classes" if replaced else ""
        self.reporter.note(f"starting from {path}{remark}")

    def _choose_transfer(self) -> str:
        """How the weights that it starts from are fitted to the pictures."""
        wanted = self.config.train.transfer
        if wanted != "auto":
            return wanted
        from .transfer import choose

        pretrained = self.config.model.pretrained != "none" and hasattr(self.network, "parts")
        chosen, why = choose(len(self.train_samples), len(self.labels), pretrained)
        if chosen == "head" and self.config.train.progressive_from:
            chosen, why = "stages", "train.progressive_from needs stages that learn"
        self.reporter.note(f"train.transfer: {chosen}, since {why}")
        return chosen

    def _rate_factors(self) -> dict[str, float]:
        """Of the learning rate, by parameter name, where layers learn at different rates."""
        if self.transfer != "stages":
            return {}
        from .transfer import rate_factors

        if not hasattr(self.network, "parts"):
            raise TrainError(f"train.transfer: {self.spec.name} has no stages to tell apart; set it to full")
        return rate_factors(self.network, self.full_size)

    def _probe(self) -> bool:
        """Fit the classifier to the features of the weights that it starts from; whether that was possible."""
        from .accelerator import accelerate
        from .frozen import Stages
        from .transfer import PROBE_VIEWS, probe

        if self.frozen is not None:
            front = self.frozen.front
        else:
            front = Stages(self.network, 0, len(self.network.parts()) - 1)
            if self.config.train.accelerate and self.paddle.get_device() == "cpu":
                accelerate(front, self.config.train.threads)
        layer = self.network
        for name in self.spec.classifier.split("."):
            layer = getattr(layer, name)
        plain = Loader(
            self.train_samples,
            Pipeline(self.config.eval.transforms, training=False),
            self.config.eval.batch_size,
            len(self.labels),
            cache=self.val_pictures.cache,
            workers=self.config.data.workers,
        )
        loaders = [plain, *[self.train_pictures.in_order()] * (PROBE_VIEWS - 1)]
        reason = probe(self.network, front, layer, (b for view, each in enumerate(loaders) for b in each.epoch(view)))
        if reason is not None:
            self.reporter.note(f"no linear probe: {reason}")
            return False
        self.world.share_tensors(layer.parameters())
        if self.average is not None:
            from .optim import MovingAverage

            self.average = MovingAverage(self.network, self.average.decay)
        return True

    def _freeze(self, last: Optional[str]) -> Any:
        """The network that learns: the whole one, or its late stages, with loaders of features before them."""
        config = self.config.train
        if last is None:
            return self.network
        from .frozen import FeatureLoader, FrozenPart

        part = FrozenPart(self.network, last, self.spec.name, self.train_loader.pipeline.size)
        cache = self.train_loader.cache  # features and pictures share its budget
        validation = FeatureLoader(self.val_loader, part, 1, cache.budget)
        cache.budget -= validation.bytes
        training = FeatureLoader(self.train_loader, part, config.freeze_views, cache.budget)
        cache.budget -= training.bytes
        self.train_loader, self.val_loader, self.frozen = training, validation, part
        return part.tail

    def _accelerate(self) -> None:
        from .accelerator import accelerate, compiled, has_bfloat16, unsupported

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
        accelerate(self.trained, self.config.train.threads, self.world.sum if synced else None, bfloat16)
        for front in (self.frozen and self.frozen.front, self.distillation and self.distillation.front):
            if front is not None:
                accelerate(front, self.config.train.threads, bfloat16=bfloat16)

    def _restore(self, state: dict[str, Any]) -> _Progress:
        from .models.weights import fit_weights
        from .optim import restore_optimizer

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
        return _Progress(state["epoch"], state["best"], state["stale_epochs"])

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

    # -- the run -----------------------------------------------------------------------------------------------------

    def run_all(self) -> TrainResult:
        """All epochs that are left."""
        config, progress = self.config.train, self.progress
        try:
            with self.interrupts:
                if self.probed:
                    self._validate_probe()
                while progress.epoch < config.epochs and not self._stops_early():
                    self._one_epoch(progress.epoch + 1)
        finally:
            if self.world.rank == 0:
                self._draw_curves()
            if self.visualdl is not None:
                self.visualdl.close()
        assert progress.best is not None
        return TrainResult(self.run, progress.epoch, progress.best, time.perf_counter() - self.began)

    def _validate_probe(self) -> None:
        record: dict[str, Any] = {"event": "probe", "epoch": 0}
        self._validate(record)
        self.progress.stale_epochs = 0
        if self.world.rank == 0:
            self._log(record, sync=True)
            self.reporter.note(f"linear probe of the weights as they are: val top-1 {record['val_top1']:.1%}")

    def _stops_early(self) -> bool:
        return self.config.train.early_stop and self.progress.stale_epochs >= self.config.train.early_stop_patience

    def _one_epoch(self, epoch: int) -> None:
        """Train and validate once, then put everything on disk."""
        began = time.perf_counter()
        record = {"event": "epoch", "epoch": epoch, "epochs": self.config.train.epochs, **self._train_epoch(epoch)}
        if self.world.size > 1:
            self._share_statistics()
        if self.average is not None:
            with self.average.applied(self.network):
                self._validate(record)
        else:
            self._validate(record)
        record["seconds"] = round(time.perf_counter() - began, 3)
        # Last of all: a kill before this line costs the epoch, never what was saved before.
        if self.world.rank == 0:
            self._log(record, sync=True)
            self._save_last()
            self.run.remember()
            self.reporter.epoch(record)

    def _share_statistics(self) -> None:
        """Give all processes the mean of batch norm's running statistics, of which each has its own."""
        state = self.network.state_dict()
        averaged = self.average.values if self.average is not None else {}
        keys = [key for key, value in state.items() if value.stop_gradient]
        self.world.share_mean([values[key] for values in (state, averaged) for key in keys if key in values])

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        from .optim import learning_rate

        config, paddle, world, steps = self.config.train, self.paddle, self.world, len(self.train_loader)
        # Dropout draws from here; a seed an epoch, so that a resumed run draws the same.
        entropy = [config.seed, epoch] + [world.rank] * (world.size > 1)
        paddle.seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self._choose_size(epoch)
        self.network.train()
        began = time.perf_counter()
        seen, labelled, right, loss_sum, rate = 0, 0.0, 0.0, 0.0, 0.0
        for index, batch in enumerate(self.train_loader.epoch(epoch)):
            step = (epoch - 1) * steps + index
            rate = learning_rate(config, step, steps)
            self.optimizer.set_lr(rate)
            if self.distillation is None:
                logits = self.trained(as_tensor(batch.images))
                loss = self._loss(logits, batch)
            else:
                logits, loss = self.distillation(self.trained, as_tensor(batch.images), batch, epoch)
            hits = float((logits.numpy().argmax(1) == batch.labels).mean())
            value, hits = world.sum(np.array([float(loss), hits * batch.weight]))
            if not math.isfinite(value):
                self._diverged(value, epoch, index, rate)
            loss.backward()
            if world.size > 1:
                world.add_gradients(self.network.parameters())
            self.optimizer.step()
            self.optimizer.clear_grad()
            if self.average is not None:
                self.average.update(self.network, step)
            right += hits * batch.total
            labelled += float((batch.labels >= 0).mean()) * batch.total
            seen += batch.total
            loss_sum += value * batch.total
            self.interrupts.check()
            top1 = right / max(labelled, 1)
            self._report_step(epoch, index, rate, loss_sum / seen, top1, seen / (time.perf_counter() - began))
        return {
            "learning_rate": rate,
            "train_loss": loss_sum / seen,
            "train_top1": right / max(labelled, 1),
            "images_per_second": round(seen / (time.perf_counter() - began), 2),
            "data_wait": round(self.train_loader.wait, 3),
        }

    def _diverged(self, value: float, epoch: int, index: int, rate: float) -> None:
        where = f"the loss became {value} at epoch {epoch}, step {index + 1} of {len(self.train_loader)}, "
        advice = (
            f"try a smaller train.learning_rate. The checkpoint of epoch {epoch - 1} is intact."
            if epoch > 1
            else "try a smaller train.learning_rate or a warm-up (train.warmup_epochs)"
        )
        raise TrainError(f"{where}learning rate {rate:g}; {advice}")

    def _choose_size(self, epoch: int) -> None:
        """Progressive resizing: the pipeline for an epoch's pictures."""
        train = self.config.train
        if train.progressive_from is None or self.frozen is not None:
            return
        full = min(self.full_size)
        side = side_at(epoch, train.epochs, train.progressive_from, full, train.progressive_share)
        self.train_loader.pipeline = Pipeline(scaled(train.transforms, side / full), training=True)

    def _loss(self, logits: Any, batch: Batch) -> Any:
        """Cross-entropy with soft targets, weighted by class where the recipe says so; this process's part of it."""
        functional = self.paddle.nn.functional
        losses = -(functional.log_softmax(logits, axis=1) * self.paddle.to_tensor(batch.targets)).sum(axis=1)
        if self.class_weights is None:
            return losses.mean() * batch.weight if batch.weight != 1 else losses.mean()
        weights = batch.targets @ self.class_weights
        # A batch's picture counts by its weight's share in the whole batch, wherever it is computed.
        whole = self.world.sum(np.array([weights.sum(dtype=np.float64)]))[0]
        return (losses * self.paddle.to_tensor(weights)).sum() / float(whole)

    def _report_step(self, epoch: int, index: int, rate: float, loss: float, top1: float, speed: float) -> None:
        if self.world.rank:
            return
        steps, epochs = len(self.train_loader), self.config.train.epochs
        images_left = (epochs - epoch) * len(self.train_samples) + (steps - index - 1) * self.config.train.batch_size
        record = {
            "event": "step",
            "epoch": epoch,
            "epochs": epochs,
            "step": index + 1,
            "steps": steps,
            "loss": loss,
            "top1": top1,
            "learning_rate": rate,
            "images_per_second": round(speed, 2),
            "seconds_left": round(images_left / speed, 1),
        }
        self.reporter.step(record)
        if (index + 1) % self.config.train.log_interval_steps == 0:
            self._log(record)

    def _validate(self, record: dict[str, Any]) -> None:
        """Measure on the validation list, and keep the weights where they are the best so far."""
        from .evaluation import run_network

        self.network.eval()
        scores = self._gathered(run_network(self.trained, self.val_loader, self.interrupts.check))
        record.update(val_loss=scores.loss, val_top1=scores.top1)
        best, progress = self.progress.best, self.progress
        # Small validation sets tie often; the smaller loss then decides.
        better = best is None or (scores.top1, -scores.loss) > (best["val_top1"], -best["val_loss"])
        progress.stale_epochs = 0 if best is None or scores.top1 > best["val_top1"] else progress.stale_epochs + 1
        record["best"] = better
        progress.epoch = record["epoch"]
        if better:
            progress.best = {"epoch": record["epoch"], "val_top1": scores.top1, "val_loss": scores.loss}
        if better and self.world.rank == 0:
            checkpoint.save(self.run.best, self._model_info(), model=checkpoint.network_arrays(self.network))

    def _gathered(self, mine: Scores) -> Scores:
        """The scores of the whole list, of which each process has every ``size``-th picture."""
        if self.world.size == 1:
            return mine
        rank, size = self.world.rank, self.world.size
        whole = np.zeros((len(self.val_samples), len(self.labels)))
        whole[rank::size] = mine.probabilities
        labels = np.array([sample.label for sample in self.val_samples], np.int64)
        return Scores(self.world.sum(whole).astype(np.float32), labels)

    # -- on disk -----------------------------------------------------------------------------------------------------

    def _model_info(self) -> dict[str, Any]:
        return {
            "pplc": __version__,
            "network": self.spec.name,
            "dropout": self.config.model.dropout,
            "options": dataclasses.asdict(self.config.model.options),
            "labels": self.labels,
            "transforms": self.config.eval.transforms,
            **(self.progress.best or {}),
        }

    def _save_last(self) -> None:
        from .optim import optimizer_arrays

        averaged = {k: v.numpy() for k, v in self.average.values.items()} if self.average is not None else None
        learnt = self.distillation.map if self.distillation is not None else None
        mapped = checkpoint.network_arrays(learnt) if learnt is not None else None
        info = {**self._model_info(), **dataclasses.asdict(self.progress)}
        checkpoint.save(
            self.run.last,
            {**info, "fingerprint": self.fingerprint, "config": self.config.to_dict()},
            model=checkpoint.network_arrays(self.network),
            optimizer=optimizer_arrays(self.optimizer, self.learners),
            ema=averaged,
            distill=mapped,
        )

    def _log(self, record: dict[str, Any], sync: bool = False) -> None:
        try:
            with self.run.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
                if sync:
                    os.fsync(file.fileno())
        except OSError as error:
            raise TrainError(f"cannot write {self.run.log}: {error.strerror}; free some space, then --resume") from None
        if self.visualdl is not None:
            name = "epoch" if record["event"] == "epoch" else "step"
            step = record["epoch"] if name == "epoch" else (record["epoch"] - 1) * record["steps"] + record["step"]
            for key in record.keys() & {
                "loss",
                "top1",
                "learning_rate",
                "train_loss",
                "train_top1",
                "val_loss",
                "val_top1",
            }:
                self.visualdl.add_scalar(tag=f"{name}/{key}", value=record[key], step=step)

    def _draw_curves(self) -> None:
        from .pictures import draw_curves

        epochs = self.run.epochs()
        if epochs:
            try:
                draw_curves(self.run.curves, epochs)
            except PplcError as error:  # the disk is full: the weights matter, the picture does not
                self.reporter.note(str(error))
