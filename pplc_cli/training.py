"""Training, from a configuration to a run's folder. Import :func:`pplc_cli.runtime.load_paddle` comes first."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from . import __version__, checkpoint
from .config import Config
from .data.lists import Sample, count_by_class, read_labels, require_part
from .data.loader import ImageCache, Loader
from .data.transforms import Pipeline
from .errors import CheckpointError, DataError, PplcError, TrainError
from .files import remove_leftovers, user_path, write_text
from .metrics import Scores
from .models.registry import build_network, find_network
from .models.weights import SOURCES, load_pretrained
from .reporter import Reporter, TrainResult
from .run import Run
from .runtime import load_paddle

# What may change between the parts of a resumed run without changing its result.
_FREE_KEYS = {
    "data": {"cache_mb", "workers"},
    "train": {"log_interval_steps", "visualdl", "epochs"},
    "eval": {"split", "worst"},
}


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
        self.train_samples = require_part(config.data, "train", self.labels)
        self.val_samples = require_part(config.data, "val", self.labels)
        self.fingerprint = _fingerprint(self.labels, self.train_samples, self.val_samples)
        state = self._prepare_folder(resume, force)

        self.paddle = load_paddle(config.train.threads)
        from .optim import MovingAverage, build_optimizer

        self.spec = find_network(config.model.name)
        self.paddle.seed(config.train.seed)
        self.network = build_network(self.spec.name, len(self.labels), dropout=config.model.dropout)
        if state is None:
            self._load_pretrained()
        self.optimizer = build_optimizer(self.network, config.train)
        self.average = MovingAverage(self.network, config.train.ema_decay) if config.train.ema_decay else None
        self.progress = _Progress() if state is None else self._restore(state)
        self._accelerate()
        self._make_loaders()
        self.class_weights = self._class_weights()
        self.visualdl = self._open_visualdl()

    # -- before the first step ---------------------------------------------------------------------------------------

    def _prepare_folder(self, resume: bool, force: bool) -> Optional[dict[str, Any]]:
        """The state to resume from, or None for a new run, whose folder is then clean."""
        run = self.run
        if run.exists() and not (resume or force):
            raise CheckpointError(
                f"{run.folder} holds a run already: --resume goes on with it, --force replaces it, "
                "--output FOLDER puts the new one elsewhere"
            )
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{run.folder}: cannot be made: {error.strerror}") from None
        remove_leftovers(run.folder)
        state = checkpoint.load_info(run.last, "model") if resume and run.exists() and run.last.exists() else None
        if state is not None:
            self._check_resumable(state)
        else:
            if resume:
                self.reporter.note(f"{run.folder} has no whole epoch yet; starting from the beginning")
            _remove_run(run)
        run.save_config(self.config)
        kept = [r for r in run.records() if state is not None and r.get("epoch", 0) <= state["epoch"]]
        write_text(run.log, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))
        return state

    def _check_resumable(self, state: dict[str, Any]) -> None:
        old, new = state["config"], self.config.to_dict()
        changed = [
            f"{section}.{key}: {old[section].get(key)!r} then, {value!r} now"
            for section in ("data", "model", "train", "eval")
            for key, value in new[section].items()
            if key not in _FREE_KEYS.get(section, ()) and json.dumps(old[section].get(key)) != json.dumps(value)
        ]
        if self.config.train.schedule == "cosine" and old["train"]["epochs"] != self.config.train.epochs:
            changed.append(f"train.epochs: {old['train']['epochs']} then, and a cosine schedule depends on it")
        if changed:
            raise CheckpointError(
                f"{self.run.folder} cannot be resumed with another recipe ({'; '.join(changed)}); "
                "undo the change, or start anew with --force or another --output"
            )
        if state["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.run.folder} cannot be resumed: the lists in {self.config.data.dir} have changed since it "
                "started; start anew with --force or another --output"
            )

    def _load_pretrained(self) -> None:
        source = self.config.model.pretrained
        if source == "none":
            if self.spec.pretrained:
                self.reporter.note(f"{self.config.model.name} asks for SSLD weights, but model.pretrained is none")
            return
        if source in SOURCES:
            source = self.spec.pretrained or source
        path, replaced = load_pretrained(self.network, self.spec, source, progress=self.reporter.download)
        remark = f"; its classifier is replaced by a new one for {len(self.labels)} classes" if replaced else ""
        self.reporter.note(f"starting from {path}{remark}")

    def _accelerate(self) -> None:
        from .accelerator import accelerate, compiled, unsupported

        if not self.config.train.accelerate:
            return
        reason = unsupported()
        if reason is not None:
            self.reporter.note(f"training with Paddle's own, slower kernels: {reason}")
            return
        if not compiled():
            self.reporter.note("compiling the fast kernels for this CPU, once; it takes about 20 seconds")
        accelerate(self.network, self.config.train.threads)

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
        restore_optimizer(self.optimizer, self.network, optimizer)
        if self.average is not None and averaged is not None:
            self.average.values = {key: self.paddle.to_tensor(value) for key, value in averaged.items()}
        self.reporter.note(f"going on after epoch {state['epoch']}")
        return _Progress(state["epoch"], state["best"], state["stale_epochs"])

    def _make_loaders(self) -> None:
        data, train = self.config.data, self.config.train
        cache = ImageCache(data.cache_mb)
        self.train_loader = Loader(
            self.train_samples,
            Pipeline(train.transforms, training=True),
            train.batch_size,
            len(self.labels),
            cache=cache,
            workers=data.workers,
            shuffle=True,
            seed=train.seed,
            label_smoothing=train.label_smoothing,
        )
        self.val_loader = Loader(
            self.val_samples,
            Pipeline(self.config.eval.transforms, training=False),
            self.config.eval.batch_size,
            len(self.labels),
            cache=cache,
            workers=data.workers,
        )

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

    def _open_visualdl(self) -> Any:
        if not self.config.train.visualdl:
            return None
        try:
            from visualdl import LogWriter
        except ImportError:
            raise TrainError("train.visualdl needs VisualDL; install it with: pip install 'pplc[visualdl]'") from None
        return LogWriter(logdir=str(self.run.visualdl), display_name=self.run.folder.name)

    # -- the run -----------------------------------------------------------------------------------------------------

    def run_all(self) -> TrainResult:
        """All epochs that are left."""
        config, progress = self.config.train, self.progress
        try:
            while progress.epoch < config.epochs and not self._stops_early():
                self._one_epoch(progress.epoch + 1)
        finally:
            self._draw_curves()
            if self.visualdl is not None:
                self.visualdl.close()
        assert progress.best is not None
        return TrainResult(self.run, progress.epoch, progress.best, time.perf_counter() - self.began)

    def _stops_early(self) -> bool:
        return self.config.train.early_stop and self.progress.stale_epochs >= self.config.train.early_stop_patience

    def _one_epoch(self, epoch: int) -> None:
        """Train and validate once, then put everything on disk."""
        began = time.perf_counter()
        record = {"event": "epoch", "epoch": epoch, "epochs": self.config.train.epochs, **self._train_epoch(epoch)}
        if self.average is not None:
            with self.average.applied(self.network):
                self._validate(record)
        else:
            self._validate(record)
        record["seconds"] = round(time.perf_counter() - began, 3)
        # Last of all: a kill before this line costs the epoch, never what was saved before.
        self._log(record, sync=True)
        self._save_last()
        self.run.remember()
        self.reporter.epoch(record)

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        from .optim import learning_rate

        config, paddle, steps = self.config.train, self.paddle, len(self.train_loader)
        # Dropout draws from here; a seed an epoch, so that a resumed run draws the same.
        paddle.seed(int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0]))
        self.network.train()
        began = time.perf_counter()
        seen, right, loss_sum, rate = 0, 0, 0.0, 0.0
        for index, batch in enumerate(self.train_loader.epoch(epoch)):
            step = (epoch - 1) * steps + index
            rate = learning_rate(config, step, steps)
            self.optimizer.set_lr(rate)
            logits = self.network(paddle.to_tensor(batch.images))
            loss = self._loss(logits, batch.targets)
            value = float(loss)
            if not math.isfinite(value):
                raise TrainError(
                    f"the loss became {value} at epoch {epoch}, step {index + 1} of {steps}, learning rate {rate:g}; "
                    f"try a smaller train.learning_rate. The checkpoint of epoch {epoch - 1} is intact."
                    if epoch > 1
                    else f"the loss became {value} at epoch 1, step {index + 1} of {steps}, learning rate {rate:g}; "
                    "try a smaller train.learning_rate or a warm-up (train.warmup_epochs)"
                )
            loss.backward()
            self.optimizer.step()
            self.optimizer.clear_grad()
            if self.average is not None:
                self.average.update(self.network, step)
            right += int((logits.numpy().argmax(1) == batch.labels).sum())
            seen += len(batch.labels)
            loss_sum += value * len(batch.labels)
            self._report_step(epoch, index, rate, loss_sum / seen, right / seen, seen / (time.perf_counter() - began))
        return {
            "learning_rate": rate,
            "train_loss": loss_sum / seen,
            "train_top1": right / seen,
            "images_per_second": round(seen / (time.perf_counter() - began), 2),
            "data_wait": round(self.train_loader.wait, 3),
        }

    def _loss(self, logits: Any, targets: np.ndarray) -> Any:
        """Cross-entropy with soft targets, weighted by class where the recipe says so."""
        functional = self.paddle.nn.functional
        losses = -(functional.log_softmax(logits, axis=1) * self.paddle.to_tensor(targets)).sum(axis=1)
        if self.class_weights is None:
            return losses.mean()
        weights = self.paddle.to_tensor(targets @ self.class_weights)
        return (losses * weights).sum() / weights.sum()

    def _report_step(self, epoch: int, index: int, rate: float, loss: float, top1: float, speed: float) -> None:
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
        scores: Scores = run_network(self.network, self.val_loader)
        record.update(val_loss=scores.loss, val_top1=scores.top1)
        best, progress = self.progress.best, self.progress
        # Small validation sets tie often; the smaller loss then decides.
        better = best is None or (scores.top1, -scores.loss) > (best["val_top1"], -best["val_loss"])
        progress.stale_epochs = 0 if best is None or scores.top1 > best["val_top1"] else progress.stale_epochs + 1
        record["best"] = better
        progress.epoch = record["epoch"]
        if better:
            progress.best = {"epoch": record["epoch"], "val_top1": scores.top1, "val_loss": scores.loss}
            checkpoint.save(self.run.best, self._model_info(), model=checkpoint.network_arrays(self.network))

    # -- on disk -----------------------------------------------------------------------------------------------------

    def _model_info(self) -> dict[str, Any]:
        return {
            "pplc": __version__,
            "network": self.spec.name,
            "dropout": self.config.model.dropout,
            "labels": self.labels,
            "transforms": self.config.eval.transforms,
            **(self.progress.best or {}),
        }

    def _save_last(self) -> None:
        from .optim import optimizer_arrays

        averaged = {k: v.numpy() for k, v in self.average.values.items()} if self.average is not None else None
        info = {**self._model_info(), **dataclasses.asdict(self.progress)}
        checkpoint.save(
            self.run.last,
            {**info, "fingerprint": self.fingerprint, "config": self.config.to_dict()},
            model=checkpoint.network_arrays(self.network),
            optimizer=optimizer_arrays(self.optimizer, self.network),
            ema=averaged,
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


def _fingerprint(labels: Sequence[str], *lists: Sequence[Sample]) -> str:
    text = json.dumps([list(labels), [[(s.name, s.label) for s in samples] for samples in lists]])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _remove_run(run: Run) -> None:
    """Remove what an earlier run left in the folder; nothing that is not ours."""
    import shutil

    for folder in (run.best, run.last, run.exported, run.visualdl):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (run.log, run.curves):
        file.unlink(missing_ok=True)
