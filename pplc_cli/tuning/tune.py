"""Search for the configuration that suits a data set and this machine.

Three phases, each an Optuna study: linear probes choose network and image size, short trainings choose the recipe, and
the best are trained in full. The test list plays no part.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import CheckpointError, PplcError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, user_path, write_json
from pplc_cli.config.load import as_config
from pplc_cli.config.sections import Config
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.training.evaluation.evaluate import score_samples
from pplc_cli.training.progress import NotedOnce, Relayed, Reporter
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.samples import Samples, read_samples
from pplc_cli.training.train import train
from pplc_cli.tuning.folds import assign_folds, train_folds
from pplc_cli.tuning.probes import probe, standard_error
from pplc_cli.tuning.space import NETWORK, SIZE, Range, Space, apply, read_space
from pplc_cli.tuning.study import SEEN, OutOfTime, Params, Phase, load_optuna, open_storage, sqlite_url

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

DATABASE, RESULT, TRIALS = "search.db", "search.json", "trials"
CANDIDATE = "candidate"  # the parameter that stands for a network at an image size
KEPT = 2  # candidates that are trained, and recipes that are trained in full
SHARES = (0.3, 0.65)  # of the time, after which probes and short trainings end
PROBE_FOLDS = 5


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
        """The candidates than which none is both faster and better, by latency."""
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


def tune(
    config: Union[Config, Mapping[str, Any], PathLike],
    *,
    resume: bool = False,
    force: bool = False,
    storage: Optional[str] = None,
    reporter: Optional[Reporter] = None,
) -> TuneResult:
    """Search the space of ``tune.space`` for the best configuration.

    Args:
        config: where the search starts; its section ``tune`` bounds it.
        resume: go on with the search in ``config.output``; a process that joins one on another machine needs it too.
        force: replace the search in ``config.output``.
        storage: address of Optuna's storage, to share a search between processes and machines; None: ``search.db`` in
            ``config.output``.
        reporter: receives the progress.

    Raises:
        TypeError: an argument has another type.
        ConfigError: the space is not valid.
        PplcError: for anything a user can mend.
    """
    config = as_config(config)
    expect_type("reporter", reporter, Reporter, type(None))
    expect_type("storage", storage, str, type(None))
    load_optuna()
    space = read_space(config)
    return _Search(config, space, NotedOnce(reporter or Reporter()), storage).run(resume, force)


class _Search:
    """A search; its state lives in the storage alone."""

    def __init__(self, config: Config, space: Space, reporter: Reporter, storage: Optional[str]) -> None:
        self.config, self.space, self.reporter = config, space, reporter
        self.folder = user_path(config.output)
        self.own_storage = storage is None
        self.url = storage or sqlite_url(self.folder / DATABASE)
        self.samples: Samples = read_samples(config.data, reporter.note)
        self.cache = ImageCache(config.data.cache_mb)
        self.began = time.monotonic()

    def run(self, resume: bool, force: bool) -> TuneResult:
        self._prepare(resume, force)
        self.reporter.note(tr("networks: {names}", names=", ".join(each.name for each in self._all())))
        candidates = self._probe()
        kept = self._keep(candidates)
        short, done = self._train(kept, "short", self._planned(kept), most=self.config.tune.trials, share=SHARES[1])
        best = short.complete()
        own = self._planned(kept)[0]
        recipes = [own, *(dict(trial.params) for trial in best if dict(trial.params) != own)][: 1 + KEPT]
        seconds = [trial.user_attrs["seconds"] / self.config.tune.short for trial in best]
        expected = statistics.median(seconds) if seconds else 0.0
        full, ended = self._train(kept, "full", recipes, most=0, share=1.0, expected=expected)
        result = self._result(candidates, kept, own, short, full, done and ended)
        write_json(self.folder / RESULT, result.to_dict())
        return result

    def _prepare(self, resume: bool, force: bool) -> None:
        """Refuse a folder with a search that is neither to be continued nor replaced."""
        database = self.folder / DATABASE
        if RunFolder(self.folder).exists():
            raise CheckpointError(
                tr("{folder} already holds a run: choose another folder with --output", folder=self.folder)
            )
        if database.exists() and not (resume or force):
            raise CheckpointError(
                tr(
                    "{folder} already holds a search: continue it with --resume, replace it with --force, or choose "
                    "another folder with --output",
                    folder=self.folder,
                )
            )
        if force:
            for old in (database, self.folder / RESULT):
                old.unlink(missing_ok=True)
            shutil.rmtree(self.folder / TRIALS, ignore_errors=True)
        if self.own_storage:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.storage = open_storage(self.url)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _phase(self, name: str, extra: Any, pruner: str = "none") -> Phase:
        plain = self.config.to_dict()
        recipe = {key: plain[key] for key in ("model", "train", "eval", "distill")}
        space = {
            key: dataclasses.asdict(v) if isinstance(v, Range) else list(v) for key, v in self.space.others.items()
        }
        facts = {
            "lists": self.samples.fingerprint,
            "recipe": _digest(recipe),
            "space": _digest([space, extra, self.config.tune.folds, self.config.tune.short]),
        }
        study = f"{self.folder.name} {name}"
        return Phase(self.storage, study, facts, self.config.tune.seed, pruner)

    # -- the first phase: linear probes ------------------------------------------------------------------------------

    def _all(self) -> list[Candidate]:
        return [Candidate(network, size) for network in self.space.networks for size in self.space.sizes]

    def _probe(self) -> list[Candidate]:
        """Probe every network at every size; return them with what was found, the best first."""
        every = self._all()
        if len(every) == 1 and self.config.tune.max_ms is None:
            return every
        phase = self._phase("probe", [each.name for each in every])
        images = [*self.samples.train, *self.samples.val]
        labelled = [sample for sample in images if sample.label >= 0]
        parts: list[np.ndarray] = []

        def measure(trial: Trial) -> float:
            chosen = next(each for each in every if each.name == trial.suggest_categorical(CANDIDATE, names))
            if not parts:
                parts.append(self._folds_of(labelled))
            config = apply(self.config, chosen.values)
            check = _Clock(self.reporter, self._deadline(SHARES[0])).check
            try:
                found = probe(config, labelled, parts[0], len(self.samples.labels), self.cache, check)
            except PplcError as error:
                self.reporter.note(tr("{name}: no probe: {reason}", name=chosen.name, reason=error))
                return 0.0
            trial.set_user_attr("ms", found.ms)
            self.reporter.note(
                tr("{name}: linear probe {top1:.1%}, {ms:.1f} ms", name=chosen.name, top1=found.accuracy, ms=found.ms)
            )
            return found.accuracy

        names = [each.name for each in every]
        phase.run(measure, [{CANDIDATE: each.name} for each in every], deadline=self._deadline(SHARES[0]))
        found = {trial.params[CANDIDATE]: trial for trial in phase.complete()}
        measured = [
            dataclasses.replace(each, accuracy=found[each.name].value or None, ms=found[each.name].user_attrs.get("ms"))
            if each.name in found
            else each
            for each in every
        ]
        return sorted(measured, key=lambda each: -(each.accuracy or 0.0))

    def _folds_of(self, samples: list[Any]) -> np.ndarray:
        labels = self.samples.labels
        counts = np.bincount([sample.label for sample in samples], minlength=len(labels))
        folds = max(2, min(PROBE_FOLDS, int(counts.min())))
        return assign_folds(samples, labels, folds, self.config.split.group, self.config.tune.seed)

    def _keep(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates to train: the best that are fast enough, and those that are as good within chance.

        Raises:
            TrainError: none is fast enough.
        """
        limit = self.config.tune.max_ms
        fast = [each for each in candidates if limit is None or (each.ms is not None and each.ms <= limit)]
        if not fast:
            times = ", ".join(f"{each.name} {each.ms:.1f}" for each in candidates if each.ms is not None)
            raise TrainError(
                tr(
                    "no network needs at most {limit:g} ms for one image on this machine ({times}); allow more with "
                    "--max-ms, or name smaller networks in tune.space",
                    limit=limit,
                    times=times or tr("none was measured"),
                )
            )
        best = fast[0].accuracy
        if best is None:
            return fast[:KEPT]
        margin = standard_error(best, len(self.samples.train) + len(self.samples.val))
        return [each for each in fast if each.accuracy is not None and each.accuracy >= best - margin][:KEPT]

    # -- the second and third: trainings -----------------------------------------------------------------------------

    def _planned(self, kept: list[Candidate]) -> list[Params]:
        """The recipe of the configuration on each candidate, the best one first."""
        values = {key: self._own_value(key, of) for key, of in self.space.others.items()}
        return [{CANDIDATE: each.name, **values} for each in kept]

    def _own_value(self, key: str, values: Any) -> Any:
        """The configuration's value of a key, else the nearest in the space."""
        section, _, name = key.partition(".")
        own = getattr(getattr(self.config, section, None), name, None)
        if isinstance(values, Range):
            number = own if isinstance(own, (int, float)) and not isinstance(own, bool) else values.low
            number = min(max(number, values.low), values.high)
            return int(number) if values.whole else float(number)
        return own if own in values else values[0]

    def _suggest(self, trial: Trial, kept: list[Candidate]) -> tuple[Candidate, dict[str, Any]]:
        names = [each.name for each in kept]
        chosen = kept[names.index(trial.suggest_categorical(CANDIDATE, names))]
        values: dict[str, Any] = {}
        for key, of in self.space.others.items():
            if not isinstance(of, Range):
                values[key] = trial.suggest_categorical(key, list(of))
            elif of.whole:
                values[key] = trial.suggest_int(key, int(of.low), int(of.high), log=of.log)
            else:
                values[key] = trial.suggest_float(key, of.low, of.high, log=of.log)
        return chosen, values

    def _train(
        self,
        kept: list[Candidate],
        name: str,
        planned: list[Params],
        *,
        most: int,
        share: float,
        expected: float = 0.0,
    ) -> tuple[Phase, bool]:
        """Run the trainings of a phase; returns it, and whether nothing is left.

        Args:
            kept: the candidates.
            name: of the phase.
            planned: parameters of its first trials.
            most: number of trials in all; 0: the planned ones, in full.
            share: of the time, after which it ends.
            expected: seconds of a trial, as long as none is done.
        """
        phase = self._phase(name, [each.name for each in kept], self.config.tune.pruner if most else "none")
        deadline = self._deadline(share)

        def measure(trial: Trial) -> float:
            chosen, values = self._suggest(trial, kept)
            folder = self.folder / TRIALS / f"{name}-{trial.number + 1}"
            config = apply(self.config, {**chosen.values, **values})
            if most:
                config = shortened(config, self.config.tune.short)
            config = dataclasses.replace(config, output=str(folder))
            reporter = _TrialReporter(self.reporter, trial, deadline, prunes=bool(most))
            try:
                top1, loss, right = self._accuracy(config, reporter, rights=not most)
            finally:
                if most:
                    _remove_weights(folder)
                gc.collect()
            trial.set_user_attr("top1", top1)
            trial.set_user_attr("right", right)
            self.reporter.note(_line(name, trial.number + 1, top1, chosen, values))
            return top1 - 1e-4 * min(loss, 10.0)  # a small validation list ties often; the loss decides

        def needed() -> float:
            seconds = [trial.user_attrs["seconds"] for trial in phase.complete()]
            return statistics.median(seconds) if seconds else expected

        return phase, phase.run(measure, planned, most=most, deadline=deadline, needed=needed)

    def _accuracy(self, config: Config, reporter: Reporter, *, rights: bool) -> tuple[float, float, str]:
        """Train; return accuracy, loss and which images were right, as a text of 0 and 1 if that is wanted."""
        if self.config.tune.folds is not None:
            result = train_folds(config, self.config.tune.folds, force=True, reporter=reporter)
            scores = result.scores
        else:
            trained = train(config, force=True, reporter=reporter, cache=self.cache)
            if not rights:
                return trained.best["val_top1"], trained.best["val_loss"], ""
            network, info = load_network(trained.run.best)
            scores, _ = score_samples(network, config, self.samples.val, len(info["labels"]))
        right = "".join("01"[hit] for hit in (scores.probabilities.argmax(1) == scores.labels).tolist())
        return scores.top1, scores.loss, right if rights else ""

    @property
    def _images(self) -> int:
        """The number of images that a training is judged by."""
        return len(self.samples.val) + (len(self.samples.train) if self.config.tune.folds else 0)

    def _deadline(self, share: float) -> float:
        minutes = self.config.tune.minutes
        return math.inf if minutes is None else self.began + 60 * minutes * share

    # -- the result --------------------------------------------------------------------------------------------------

    def _result(
        self, candidates: list[Candidate], kept: list[Candidate], own: Params, short: Phase, full: Phase, finished: bool
    ) -> TuneResult:
        """Choose among the full trainings, else among the short ones, else keep the recipe on the best candidate."""
        final = full.complete() or short.complete()
        base = next((trial for trial in final if dict(trial.params) == own), None)
        params, chosen, better = own, base, False
        if final and (base is None or dict(final[0].params) != own):
            better = base is None or _is_better(final[0], base, self._images)
            if better:
                params, chosen = dict(final[0].params), final[0]
        candidate = next(each for each in kept if each.name == params[CANDIDATE])
        values = {key: value for key, value in params.items() if key != CANDIDATE}
        counted = short.trials()
        done = {trial.number for trial in short.complete()}
        history = [trial.user_attrs.get("top1") if trial.number in done else None for trial in counted]
        config = apply(self.config, {**candidate.values, **values})
        return TuneResult(
            dataclasses.replace(config, output=f"{self.config.output}-tuned"),
            candidate,
            {key: value for key, value in values.items() if value != self._own_value(key, self.space.others[key])},
            None if chosen is None else chosen.user_attrs["top1"],
            self._images,
            None if base is None else base.user_attrs["top1"],
            better,
            candidates,
            len(counted),
            len(counted) - len(done),
            len(full.complete()),
            finished,
            history,
            _importance(short),
        )


class _Clock(Relayed):
    """Stops when the time is over."""

    def __init__(self, reporter: Reporter, deadline: float) -> None:
        super().__init__(reporter)
        self._deadline = deadline

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def check(self) -> None:
        super().check()
        if time.monotonic() >= self._deadline:
            raise OutOfTime


class _TrialReporter(_Clock):
    """Tells a trial of each epoch, and stops one that is not worth its time."""

    def __init__(self, reporter: Reporter, trial: Trial, deadline: float, *, prunes: bool) -> None:
        super().__init__(reporter, deadline)
        self._trial, self._prunes, self._epochs = trial, prunes, 0

    def note(self, text: str) -> None:
        """Trials are many: what training says of each is left out."""

    def epoch(self, record: dict[str, Any]) -> None:
        self._epochs += 1
        self._trial.set_user_attr(SEEN, time.time())
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
            warmup_epochs=min(recipe.warmup_epochs, scaled(recipe.epochs)),
            lr_decay_epochs=sorted({scaled(epoch) for epoch in recipe.lr_decay_epochs}),
        ),
    )


def _is_better(trial: FrozenTrial, base: FrozenTrial, images: int) -> bool:
    """Whether a trial is right more often than another by more than chance, on the same images.

    Where it is not known which images each has right, as after short trainings, the images count as different ones.
    """
    one, other = (np.array(list(each.user_attrs.get("right") or "")) for each in (trial, base))
    if not len(one) or len(one) != len(other):
        share, before = trial.user_attrs["top1"], base.user_attrs["top1"]
        return bool(share - before > math.sqrt(2) * standard_error(before, images))
    gained, lost = int((one > other).sum()), int((one < other).sum())
    return gained - lost > math.sqrt(gained + lost)


def _importance(phase: Phase) -> dict[str, float]:
    """How much each parameter explains of the differences in accuracy; empty if there are too few trials."""
    if len(phase.complete()) < 4:
        return {}
    try:
        return dict(load_optuna().importance.get_param_importances(phase.study))
    except (RuntimeError, ValueError):  # all trials are equal, or no parameter varies
        return {}


def _line(phase: str, number: int, top1: float, candidate: Candidate, values: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{key} {_shown(value)}" for key, value in values.items())
    if phase == "full":
        return tr(
            "full {number}: {top1:.1%}  {name}  {values}", number=number, top1=top1, name=candidate.name, values=shown
        )
    return tr(
        "trial {number}: {top1:.1%}  {name}  {values}", number=number, top1=top1, name=candidate.name, values=shown
    )


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _remove_weights(folder: Path) -> None:
    """Remove what a short training needs no more; its log and its configuration stay."""
    for name in ("best_model", "last"):
        for found in (folder / name, *folder.glob(f"fold-*/{name}")):
            shutil.rmtree(found, ignore_errors=True)
