"""What a search found, and when one recipe counts as better than another."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from pplc_cli.config.sections import Config
from pplc_cli.tuning.probes import standard_error
from pplc_cli.tuning.space import NETWORK, SIZE
from pplc_cli.tuning.study import Phase, load_optuna

CANDIDATE = "candidate"  # the parameter that stands for a network at an image size

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network at an image size, with what its probe found.

    Attributes:
        network: its name.
        size: side of the images in pixels; None: as in the configuration.
        accuracy: of the linear probe, on images of other folds; None: it cannot be probed.
        ms: for one image on this machine, without decoding; None: not measured.
    """

    network: str
    size: Optional[int]
    accuracy: Optional[float] = None
    ms: Optional[float] = None

    @property
    def name(self) -> str:
        """As in ``PPLCNet_x1_0@224``."""
        return self.network if self.size is None else f"{self.network}@{self.size}"

    @property
    def values(self) -> dict[str, Any]:
        """Its values in the space."""
        return {NETWORK: self.network} | ({} if self.size is None else {SIZE: self.size})


@dataclasses.dataclass(frozen=True)
class TuneResult:
    """What a search found.

    Attributes:
        config: the configuration to train.
        candidate: its network and image size.
        values: what it changes in the recipe, by key.
        accuracy: share of right predictions, by ``tune.folds`` or on the validation list.
        images: number of images that it was measured on.
        own: accuracy of the recipe that the search began with, on the same network; None: it was not reached.
        better: whether the difference is more than chance: the images on which only one of them is right differ by more
            than their standard deviation. Where it is not, the search keeps the recipe it began with.
        candidates: all networks and sizes that were probed, the best first.
        trials: number of short trainings.
        stopped: how many of them ended early.
        full: number of trainings in full.
        finished: False: the time was over first.
        history: accuracy of each short training in order; None: stopped early.
        importance: share of each parameter in the differences of accuracy, from 0 to 1; empty: too few trials.
    """

    config: Config
    candidate: Candidate
    values: dict[str, Any]
    accuracy: Optional[float]
    images: int
    own: Optional[float]
    better: bool
    candidates: list[Candidate]
    trials: int
    stopped: int
    full: int
    finished: bool
    history: list[Optional[float]]
    importance: dict[str, float]

    @property
    def front(self) -> list[Candidate]:
        """The best candidate for each latency, the fastest first: no other is both faster and better."""
        best, found = -1.0, []
        measured = [each for each in self.candidates if each.accuracy is not None and each.ms is not None]
        for each in sorted(measured, key=lambda one: (one.ms or 0.0, -(one.accuracy or 0.0))):
            if (each.accuracy or 0.0) > best:
                best = each.accuracy or 0.0
                found.append(each)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            **plain,
            "config": self.config.to_dict(),
            "candidate": dataclasses.asdict(self.candidate),
            "candidates": [dataclasses.asdict(each) for each in self.candidates],
            "front": [each.name for each in self.front],
        }


def is_better(trial: FrozenTrial, base: FrozenTrial, images: int) -> bool:
    """Whether a trial is right more often than another by more than chance, on the same images.

    Where it is not known which images each has right, as after short trainings, the images count as different ones.
    """
    one, other = (np.array(list(each.user_attrs.get("right") or "")) for each in (trial, base))
    if not len(one) or len(one) != len(other):
        share, before = trial.user_attrs["top1"], base.user_attrs["top1"]
        return bool(share - before > math.sqrt(2) * standard_error(before, images))
    gained, lost = int((one > other).sum()), int((one < other).sum())
    return gained - lost > math.sqrt(gained + lost)


def importance_of(phase: Phase) -> dict[str, float]:
    """How much each parameter explains of the differences in accuracy; empty if there are too few trials."""
    if len(phase.complete()) < 4:
        return {}
    evaluator = load_optuna().importance.FanovaImportanceEvaluator(seed=0)
    try:
        return dict(load_optuna().importance.get_param_importances(phase.study, evaluator=evaluator))
    except (RuntimeError, ValueError):  # all trials are equal, or no parameter varies
        return {}
