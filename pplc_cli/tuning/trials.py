"""The trainings of a search: shorter recipes, and reporters that stop a training in time and tell its trial."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pplc_cli.base.language.messages import tr
from pplc_cli.config.sections import Config
from pplc_cli.training.progress import Relayed, Reporter
from pplc_cli.tuning.result import Candidate
from pplc_cli.tuning.study import SEEN, OutOfTime, load_optuna

if TYPE_CHECKING:
    from optuna.trial import Trial

SIGN = 60.0  # seconds between two signs of life


class Clock(Relayed):
    """Stops when the time is over, and gives a sign of life now and then."""

    def __init__(self, reporter: Reporter, trial: Trial, deadline: float) -> None:
        super().__init__(reporter)
        self._trial, self._deadline, self._seen = trial, deadline, time.monotonic()

    def check(self) -> None:
        super().check()
        now = time.monotonic()
        if now >= self._deadline:
            raise OutOfTime
        if now - self._seen > SIGN:
            self._seen = now
            self._trial.set_user_attr(SEEN, time.time())


class TrialReporter(Clock):
    """Tells a trial of each epoch, and stops one that is not worth its time."""

    def __init__(self, reporter: Reporter, trial: Trial, deadline: float, *, prunes: bool) -> None:
        super().__init__(reporter, trial, deadline)
        self._prunes, self._epochs = prunes, 0

    def note(self, text: str) -> None:
        """Trials are many: what training says of each is left out."""

    def epoch(self, record: dict[str, Any]) -> None:
        self._epochs += 1
        if self._prunes:
            self._trial.report(record["val_top1"], self._epochs)
            if self._trial.should_prune():
                raise load_optuna().TrialPruned


def shortened(config: Config, share: float) -> Config:
    """Return a configuration with a share of its epochs; its schedule shrinks with them."""
    recipe = config.train

    def scaled(epochs: float) -> int:
        return max(1, round(epochs * share))

    return dataclasses.replace(
        config,
        train=dataclasses.replace(
            recipe,
            epochs=scaled(recipe.epochs),
            warmup_epochs=recipe.warmup_epochs * share,
            early_stop_patience=scaled(recipe.early_stop_patience),
            lr_decay_epochs=sorted({scaled(epoch) for epoch in recipe.lr_decay_epochs}),
        ),
    )


def trial_line(phase: str, number: int, top1: float, candidate: Candidate, values: Mapping[str, Any]) -> str:
    """A finished trial in a line."""
    shown = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )
    if phase == "full":
        return tr(
            "full {number}: {top1:.1%}  {name}  {values}", number=number, top1=top1, name=candidate.name, values=shown
        )
    return tr(
        "trial {number}: {top1:.1%}  {name}  {values}", number=number, top1=top1, name=candidate.name, values=shown
    )


def remove_weights(folder: Path) -> None:
    """Remove what a short training needs no more; its log and its configuration stay."""
    for name in ("best_model", "last"):
        for found in (folder / name, *folder.glob(f"fold-*/{name}")):
            shutil.rmtree(found, ignore_errors=True)
