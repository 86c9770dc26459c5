"""Trials in Optuna's storage: planned ones and sampled ones, shared by processes, whole after a kill."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from pplc_cli.base.errors import PplcError, TrainError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.identity import is_running, process_identity

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STARTUP = 6  # trials that are drawn at random before the sampler learns from them
STALE = 600.0  # seconds without a sign of life from another machine, after which a trial counts as dead
UNSIGNED = 30.0  # seconds after which a trial counts as dead whose process has not said who it is
POLL = 1.0  # seconds between looks at the trials of other processes
FACTS, WORKER, SEEN = "facts", "worker", "seen"
Params = dict[str, Any]


class OutOfTime(Exception):
    """The time for the search is over; the trial counts for nothing."""


def load_optuna() -> Any:
    """Import Optuna, silently.

    Raises:
        PplcError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise PplcError(tr("pplc tune needs Optuna; install it with: pip install 'pplc[tune]'")) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    return optuna


def open_storage(url: str) -> Any:
    """Open Optuna's storage: ``sqlite:///FILE`` or another database.

    Raises:
        PplcError: it cannot be opened.
    """
    optuna = load_optuna()
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # databases and their drivers raise errors of many kinds
        reason = one_line(error).replace(url, without_password(url))
        raise PplcError(
            tr("the storage {url} cannot be opened: {reason}", url=without_password(url), reason=reason)
        ) from None


def has_study(storage: Any, name: str) -> bool:
    """Whether a storage has a study of this name."""
    return name in load_optuna().study.get_all_study_names(storage)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn errors of Optuna's storage, as of a full disk or a lost connection, into one line.

    Raises:
        PplcError: the storage failed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    optuna = load_optuna()
    try:
        yield
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = one_line(error.__cause__ or error)
        raise PplcError(tr("the search's storage failed: {reason}; --resume goes on", reason=reason)) from error


def without_password(url: str) -> str:
    """The address of a database, to show."""
    return re.sub(r"//([^:/@]*):[^@]*@", r"//\1:***@", url)


class Phase:
    """One part of a search, an Optuna study: it runs planned trials in their order, then samples more.

    Every trial depends only on the finished ones and the seed, so that a search that was killed ends like one that was
    not, as long as one process runs at a time.
    """

    def __init__(self, storage: Any, name: str, facts: Mapping[str, Any], seed: int, pruner: str = "none") -> None:
        """
        Args:
            storage: of :func:`open_storage`.
            name: of the study.
            facts: plain data on what is searched; a study of other facts is refused.
            seed: of the sampler.
            pruner: see ``tune.pruner``.

        Raises:
            TrainError: the storage has a study of this name for other data.
        """
        self._optuna = load_optuna()
        pruners = {
            "median": lambda: self._optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
            "halving": lambda: self._optuna.pruners.SuccessiveHalvingPruner(),
            "none": lambda: self._optuna.pruners.NopPruner(),
        }
        self.study: Study = self._optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=pruners[pruner](), load_if_exists=True
        )
        self._seed = seed
        known = self.study.user_attrs.get(FACTS)
        if known is None:
            self.study.set_user_attr(FACTS, dict(facts))
        elif known != dict(facts):
            changed = sorted(key for key in facts if known.get(key) != facts[key])
            raise TrainError(
                tr(
                    "the study {name!r} searches something else ({changed} differ); choose another --output, or start "
                    "anew with --force",
                    name=name,
                    changed=", ".join(changed),
                )
            )

    def run(
        self,
        objective: Callable[[Trial], float],
        planned: Sequence[Params],
        *,
        most: int = 0,
        deadline: float = float("inf"),
        needed: Callable[[], float] = lambda: 0.0,
    ) -> bool:
        """Run what is left to do, beside other processes on the same study.

        Args:
            objective: measures a trial; raises ``optuna.TrialPruned``, or :class:`OutOfTime`.
            planned: parameters of the first trials.
            most: number of trials in all; 0: only the planned ones.
            deadline: ``time.monotonic()`` at which to stop.
            needed: estimates the seconds of the next trial; one that would not end in time does not begin.

        Returns:
            Whether nothing is left.
        """
        while True:
            self._fail_dead()
            trials = self.trials()
            left = [each for each in planned if not any(_is_of(trial, each) for trial in trials)]
            if not left and len(trials) >= max(most, len(planned)):
                if not any(trial.state == self._state.RUNNING for trial in trials):
                    return True
                if time.monotonic() >= deadline:
                    return False
                time.sleep(POLL)  # other processes finish theirs; if one dies, its trial is left
                continue
            if time.monotonic() + needed() >= deadline:
                return False
            if left and not any(_is_of(trial, left[0]) for trial in self._in_state(self._state.WAITING)):
                self.study.enqueue_trial(left[0])
            finished = sum(trial.state != self._state.RUNNING for trial in trials)
            self.study.sampler = self._sampler(finished)
            try:
                self._do(objective, left[0] if left else None, max(most, len(planned)))
            except OutOfTime:
                return False

    def trials(self) -> list[FrozenTrial]:
        """The trials that count: finished, stopped early, or running."""
        return self._in_state(self._state.COMPLETE, self._state.PRUNED, self._state.RUNNING)

    def complete(self) -> list[FrozenTrial]:
        """The trials that have a value, the best first; of equal ones the earlier."""
        found = self._in_state(self._state.COMPLETE)
        return sorted(found, key=lambda trial: (-(trial.value or 0.0), trial.number))

    @property
    def _state(self) -> Any:
        return self._optuna.trial.TrialState

    def _sampler(self, finished: int) -> Any:
        seed = int(np.random.SeedSequence([self._seed, finished]).generate_state(1)[0])
        return self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)

    def _in_state(self, *states: Any) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    def _do(self, objective: Callable[[Trial], float], planned: Optional[Params], most: int) -> None:
        trial = self.study.ask()
        if self._is_idle(trial.number, planned, most):
            self.study.tell(trial, state=self._state.FAIL)
            return
        with self._failing(trial):
            trial.set_user_attr(SEEN, time.time())
            trial.set_user_attr(WORKER, list(process_identity()))
            began = time.monotonic()
            try:
                value = objective(trial)
            except self._optuna.TrialPruned:
                self.study.tell(trial, state=self._state.PRUNED)
                return
            trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
            self.study.tell(trial, value)

    def _is_idle(self, number: int, planned: Optional[Params], most: int) -> bool:
        """Whether other processes, which came first, do this trial: a planned one, or the last of all."""
        mine = next(trial for trial in self._in_state(self._state.RUNNING) if trial.number == number)
        fixed = mine.system_attrs.get("fixed_params")
        if fixed is None:
            return planned is not None or sum(trial.number < number for trial in self.trials()) >= most
        return any(trial.number < number and _is_of(trial, fixed) for trial in self.trials())

    @contextlib.contextmanager
    def _failing(self, trial: Trial) -> Iterator[None]:
        """Give a trial up that an error or an interruption ends; it is planned or sampled again."""
        try:
            yield
        except self._optuna.exceptions.UpdateFinishedTrialError:
            pass  # another process took this one for dead, and does the trial again
        except BaseException:
            with contextlib.suppress(Exception):
                self.study.tell(trial, state=self._state.FAIL)
            raise

    def _fail_dead(self) -> None:
        """Give up the trials whose process is gone."""
        for trial in self._in_state(self._state.RUNNING):
            worker = trial.user_attrs.get(WORKER)
            begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            if worker is None:
                dead: Optional[bool] = time.time() - begun > UNSIGNED  # killed before it could say who runs it
            else:
                machine, pid, start = worker
                alive = is_running(machine, pid, start)
                quiet = time.time() - trial.user_attrs.get(SEEN, 0.0)
                dead = not alive if alive is not None else quiet > STALE
            if dead:
                self.study.tell(trial.number, state=self._state.FAIL, skip_if_finished=True)


def _is_of(trial: FrozenTrial, params: Params) -> bool:
    """Whether a trial has planned parameters."""
    known = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return all(key in known and known[key] == value for key, value in params.items())


def sqlite_url(file: Path) -> str:
    """The address of an SQLite file for :func:`open_storage`."""
    return f"sqlite:///{file.resolve().as_posix()}"
