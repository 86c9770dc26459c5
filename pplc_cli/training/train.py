"""Training, from a configuration to a run's folder. Import :func:`pplc_cli.base.paddle.load_paddle` comes first."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import PplcError, TrainError
from pplc_cli.base.paddle import as_tensor
from pplc_cli.base.version import __version__
from pplc_cli.config.sections import Config
from pplc_cli.data.loader import Batch
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.data.transforms.progressive import scaled, side_at
from pplc_cli.training.evaluation.metrics import Scores
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.setup import Preparation


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


class _Training(Preparation):
    """The run itself."""

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
        self.world.all_reduce_mean([values[key] for values in (state, averaged) for key in keys if key in values])

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        from pplc_cli.training.optim import clip_gradients, learning_rate

        config, paddle, world, steps = self.config.train, self.paddle, self.world, len(self.train_loader)
        # Dropout draws from here; a seed an epoch, so that a resumed run draws the same.
        entropy = [config.seed, epoch] + [world.rank] * (world.size > 1)
        paddle.seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self._choose_size(epoch)
        self.network.train()
        for layer in self.fixed_norms:
            layer.eval()
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
            value, hits = world.all_reduce(np.array([float(loss), hits * batch.loss_weight]))
            if not math.isfinite(value):
                self._diverged(value, epoch, index, rate)
            loss.backward()
            if world.size > 1:
                world.all_reduce_gradients(self.network.parameters())
            if config.clip_grad_norm:
                clip_gradients(self.learners, config.clip_grad_norm)
            self.optimizer.step()
            self.optimizer.clear_grad()
            if self.average is not None:
                self.average.update(self.network, step)
            right += hits * batch.global_size
            labelled += float((batch.labels >= 0).mean()) * batch.global_size
            seen += batch.global_size
            loss_sum += value * batch.global_size
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
        """Progressive resizing: the pipeline for an epoch's images."""
        train = self.config.train
        if train.progressive_from is None or self.frozen is not None:
            return
        full = min(self.full_size)
        side = side_at(epoch, train.epochs, train.progressive_from, full, train.progressive_share)
        self.train_loader.pipeline = Pipeline(scaled(train.transforms, side / full), training=True)

    def _loss(self, logits: Any, batch: Batch) -> Any:
        """Cross-entropy with soft targets, weighted by class where the recipe says so; this process's part of it."""
        from pplc_cli.training.objective import cross_entropy

        losses = cross_entropy(logits, self.paddle.to_tensor(batch.targets))
        if self.class_weights is None:
            return losses.mean() * batch.loss_weight if batch.loss_weight != 1 else losses.mean()
        weights = batch.targets @ self.class_weights
        # A batch's image counts by its weight's share in the whole batch, wherever it is computed.
        whole = self.world.all_reduce(np.array([weights.sum(dtype=np.float64)]))[0]
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
        from pplc_cli.training.evaluation.evaluate import run_network

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
        """The scores of the whole list, of which each process has every ``size``-th image."""
        if self.world.size == 1:
            return mine
        rank, size = self.world.rank, self.world.size
        whole = np.zeros((len(self.val_samples), len(self.labels)))
        whole[rank::size] = mine.probabilities
        labels = np.array([sample.label for sample in self.val_samples], np.int64)
        return Scores(self.world.all_reduce(whole).astype(np.float32), labels)

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
        from pplc_cli.training.optim import optimizer_arrays

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
            name = "step" if record["event"] == "step" else "epoch"
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
        from pplc_cli.plots.curves import draw_curves

        epochs = self.run.epochs()
        if epochs:
            try:
                draw_curves(self.run.curves, epochs)
            except PplcError as error:  # the disk is full: the weights matter, the image does not
                self.reporter.note(str(error))


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        run: its folder.
        epochs: epochs done.
        best: epoch, val_top1 and val_loss of ``best_model``.
        seconds: spent in this process.
    """

    run: RunFolder
    epochs: int
    best: dict[str, Any]
    seconds: float
