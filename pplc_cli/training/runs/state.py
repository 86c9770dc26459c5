"""The state of a run between two epochs, which a checkpoint holds."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import paddle

from pplc_cli.base.errors import CheckpointError
from pplc_cli.base.language.messages import tr
from pplc_cli.config.sections import TrainConfig
from pplc_cli.models.weights.fit import fit_weights
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.step.objective import Objective
from pplc_cli.training.step.optim import MovingAverage, optimizer_arrays, restore_optimizer
from pplc_cli.training.transfer.policy import TransferPlan
from pplc_cli.training.world import World


@dataclasses.dataclass
class TrainState:
    """Everything that an epoch changes.

    Attributes:
        network: the whole network, as it is saved.
        plan: which of its stages train.
        objective: the loss; layers of its own train too.
        optimizer: of all trained parameters.
        average: moving average of the network's weights, or None.
        epoch: the last whole epoch.
        best: epoch, val_top1, val_loss and val_images (images of the validation list) of the best epoch so far.
        stale_epochs: epochs since val_top1 last rose.
    """

    network: Any
    plan: TransferPlan
    objective: Objective
    optimizer: Any
    average: Optional[MovingAverage] = None
    epoch: int = 0
    best: Optional[dict[str, Any]] = None
    stale_epochs: int = 0

    @classmethod
    def new(
        cls, network: Any, plan: TransferPlan, objective: Objective, optimizer: Any, config: TrainConfig
    ) -> TrainState:
        """The state before the first epoch; the moving average starts from the weights as they are now."""
        average = None
        if config.ema_decay:
            average = MovingAverage(network, config.ema_decay)
        elif config.average == "all" or (config.average == "auto" and plan.probes):
            average = MovingAverage(network, None)
        return cls(network, plan, objective, optimizer, average)

    @classmethod
    def restore(
        cls,
        last: Path,
        info: dict[str, Any],
        network: Any,
        plan: TransferPlan,
        objective: Objective,
        optimizer: Any,
        config: TrainConfig,
    ) -> TrainState:
        """The state that :meth:`save` wrote; weights go into ``network``, ``objective`` and ``optimizer``.

        Args:
            last: the checkpoint's folder.
            info: its JSON.
            network, plan, objective, optimizer: as they were built.
            config: the recipe.

        Raises:
            CheckpointError: the checkpoint is damaged or incomplete.
        """
        state = cls.new(network, plan, objective, optimizer, config)
        weights = checkpoint.load_arrays(last, "model")
        moments = checkpoint.load_arrays(last, "optimizer")
        averaged = checkpoint.load_arrays(last, "ema")
        projection = checkpoint.load_arrays(last, "distill")
        if weights is None or moments is None or (state.average is not None and averaged is None):
            raise CheckpointError(tr("{folder} is incomplete; start anew with --force", folder=last))
        fit_weights(network, weights, str(last))
        if objective.projection is not None:
            if projection is None:
                raise CheckpointError(tr("{folder} is incomplete; start anew with --force", folder=last))
            fit_weights(objective.projection, projection, str(last))
        restore_optimizer(optimizer, objective.layers, moments)
        if state.average is not None and averaged is not None:
            state.average.values = averaged
        state.epoch, state.best, state.stale_epochs = info["epoch"], info["best"], info["stale_epochs"]
        return state

    def save(self, last: Path, model_info: dict[str, Any], origin: dict[str, Any]) -> None:
        """Write the checkpoint of an epoch.

        Args:
            last: its folder, replaced as a whole.
            model_info: see :func:`pplc_cli.training.runs.checkpoint.model_info`.
            origin: configuration and fingerprint, which a resumed run must match.
        """
        average, projection = self.average, self.objective.projection
        own = {"epoch": self.epoch, "best": self.best, "stale_epochs": self.stale_epochs}
        checkpoint.save(
            last,
            {**model_info, **(self.best or {}), **own, **origin},
            model=checkpoint.network_arrays(self.network),
            optimizer=optimizer_arrays(self.optimizer, self.objective.layers),
            ema=average.values if average is not None else None,
            distill=checkpoint.network_arrays(projection) if projection is not None else None,
        )

    def train_mode(self) -> None:
        """Put the network in training mode, except for batch norms with fixed statistics."""
        self.network.train()
        for layer in self.plan.fixed_norms:
            layer.eval()

    def share_statistics(self, world: World) -> None:
        """Average batch norm's running statistics, which differ between processes, over all processes."""
        state = self.network.state_dict()
        averaged = self.average.values if self.average is not None else {}
        keys = [key for key, value in state.items() if value.stop_gradient]
        tensors = {key: paddle.to_tensor(averaged[key]) for key in keys if key in averaged}
        world.all_reduce_mean([*(state[key] for key in keys), *tensors.values()])
        averaged.update({key: tensor.numpy() for key, tensor in tensors.items()})

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network its averaged weights, if there is a moving average, for the time of the block."""
        with self.average.applied(self.network) if self.average is not None else contextlib.nullcontext():
            yield

    def update(self, epoch: int, top1: float, loss: float, images: int) -> bool:
        """Count an epoch with its validation scores on ``images`` images; returns whether they are the best so far."""
        best = self.best
        # Small validation sets tie often; the smaller loss then decides.
        better = best is None or (top1, -loss) > (best["val_top1"], -best["val_loss"])
        self.stale_epochs = 0 if best is None or top1 > best["val_top1"] else self.stale_epochs + 1
        self.epoch = epoch
        if better:
            self.best = {"epoch": epoch, "val_top1": top1, "val_loss": loss, "val_images": images}
        return better

    def finished(self, config: TrainConfig) -> bool:
        """Whether all epochs are done, or training stops early."""
        stale = config.early_stop and self.stale_epochs >= config.early_stop_patience
        return stale or self.epoch >= config.epochs
