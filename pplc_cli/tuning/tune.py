"""Search for the configuration that suits a data set and this machine.

Three phases, each an Optuna study: linear probes choose network and image size, short trainings choose the recipe, and
the best are trained in full. The test list plays no part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import CheckpointError, DataError, PplcError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import expect_type
from pplc_cli.base.storage.files import PathLike, user_path, write_json
from pplc_cli.config.load import as_config
from pplc_cli.config.sections import OWN_TEACHER, Config, DistillConfig
from pplc_cli.data.lists import Sample
from pplc_cli.data.loading.image_cache import ImageCache
from pplc_cli.training.evaluation.evaluate import score_samples
from pplc_cli.training.progress import NotedOnce, Reporter
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.samples import Samples, read_samples
from pplc_cli.training.train import train
from pplc_cli.tuning.folds import assign_folds, train_folds
from pplc_cli.tuning.probes import probe, standard_error
from pplc_cli.tuning.recipes import Recipes
from pplc_cli.tuning.result import CANDIDATE, Candidate, TuneResult, importance_of, is_better
from pplc_cli.tuning.space import Range, Space, apply, read_space
from pplc_cli.tuning.study import Params, Phase, has_study, load_optuna, open_storage, sqlite_url, storage_errors
from pplc_cli.tuning.trials import Clock, TrialReporter, remove_weights, shortened, trial_line

if TYPE_CHECKING:
    from optuna.trial import Trial

DATABASE, RESULT, TRIALS = "search.db", "search.json", "trials"
PHASES = ("probe", "short", "full")
KEPT_NAMES = "kept"
KEPT = 2  # candidates that are trained, and recipes that are trained in full
SHARES = (0.3, 0.65)  # of the time, after which probes and short trainings end
PROBE_FOLDS = 5


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
    with reporter or Reporter() as entered, storage_errors():
        if config.distill.teacher == OWN_TEACHER:
            entered.note(
                tr("distill.teacher: auto is left out of the search, which compares networks without a teacher")
            )
            config = dataclasses.replace(config, distill=DistillConfig())
        space = read_space(config)
        return _Search(config, space, NotedOnce(entered), storage).run(resume, force)


class _Search:
    """A search; its state lives in the storage alone."""

    def __init__(self, config: Config, space: Space, reporter: Reporter, storage: Optional[str]) -> None:
        self.config, self.space, self.reporter = config, space, reporter
        self.recipes = Recipes(config, space)
        self.folder = user_path(config.output)
        self.own_storage = storage is None
        self.url = storage or sqlite_url(self.folder / DATABASE)
        self.samples: Samples = read_samples(config.data, reporter.note)
        self.cache = ImageCache(config.data.cache_mb)
        self.began = time.monotonic()
        self.kept: list[Candidate] = []
        self.all_probed = True

    def run(self, resume: bool, force: bool) -> TuneResult:
        self._prepare(resume, force)
        self.reporter.note(tr("networks: {names}", names=", ".join(each.name for each in self._all())))
        candidates = self._probe()
        kept = self.kept
        planned, most = [self.recipes.own(each) for each in kept], self.config.tune.trials
        short, done = self._train(kept, "short", planned[:most], most=most, share=SHARES[1])
        best, own = short.complete(), planned[0]
        recipes = [own, *(dict(trial.params) for trial in best if dict(trial.params) != own)][: 1 + KEPT]
        seconds = [trial.user_attrs["seconds"] / self.config.tune.short for trial in best]
        expected = statistics.median(seconds) if seconds else 0.0
        full, ended = self._train(kept, "full", recipes, most=0, share=1.0, expected=expected)
        result = self._result(candidates, kept, own, short, full, self.all_probed and done and ended)
        write_json(self.folder / RESULT, result.to_dict())
        return result

    def _prepare(self, resume: bool, force: bool) -> None:
        """Refuse a folder with a search that is neither to be continued nor replaced."""
        if RunFolder(self.folder).exists() or RunFolder(self.folder).folds.exists():
            raise CheckpointError(
                tr("{folder} already holds a run: choose another folder with --output", folder=self.folder)
            )
        if self.own_storage:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.storage = open_storage(self.url)
        old = [name for name in map(self._study, PHASES) if has_study(self.storage, name)]
        if old and not (resume or force):
            raise CheckpointError(
                tr(
                    "{folder} already holds a search: continue it with --resume, replace it with --force, or choose "
                    "another folder with --output",
                    folder=self.folder,
                )
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if force:
            for name in old:
                load_optuna().delete_study(study_name=name, storage=self.storage)
            (self.folder / RESULT).unlink(missing_ok=True)
            shutil.rmtree(self.folder / TRIALS, ignore_errors=True)

    def _study(self, phase: str) -> str:
        """The name of a phase in the storage."""
        return f"{self.folder.name} {phase}"

    def _phase(self, name: str, extra: Any, pruner: str = "none") -> Phase:
        plain = self.config.to_dict()
        recipe = {key: plain[key] for key in ("model", "train", "eval", "distill")}
        recipe["data"] = {key: plain["data"][key] for key in ("sampler", "unlabelled", "extra_list")}
        space = {
            key: dataclasses.asdict(v) if isinstance(v, Range) else list(v) for key, v in self.space.others.items()
        }
        facts = {
            "lists": self.samples.fingerprint,
            "recipe": _digest(recipe),
            "space": _digest([space, extra, self.config.tune.folds, self.config.tune.short]),
        }
        return Phase(self.storage, self._study(name), facts, self.config.tune.seed, pruner)

    # -- the first phase: linear probes ------------------------------------------------------------------------------

    def _all(self) -> list[Candidate]:
        return [Candidate(network, size) for network in self.space.networks for size in self.space.sizes]

    def _probe(self) -> list[Candidate]:
        """Probe every network at every size; return them with what was found, the best first."""
        every = self._all()
        if len(every) == 1 and self.config.tune.max_ms is None:
            self.kept = every
            return every
        phase = self._phase("probe", [[each.name for each in every], self.config.tune.max_ms])
        labelled = self._labelled
        parts: list[np.ndarray] = []
        # A cache of its own: training decodes large images at a smaller size than evaluation.
        cache = ImageCache(self.config.data.cache_mb)

        def measure(trial: Trial) -> float:
            chosen = next(each for each in every if each.name == trial.suggest_categorical(CANDIDATE, names))
            if not parts:
                parts.append(self._folds_of(labelled))
            config = apply(self.config, chosen.values)
            check = Clock(self.reporter, trial, self._deadline(SHARES[0])).check
            try:
                found = probe(config, labelled, parts[0], len(self.samples.labels), cache, check)
            except PplcError as error:
                self.reporter.note(tr("{name}: no probe: {reason}", name=chosen.name, reason=error))
                return 0.0
            trial.set_user_attr("ms", found.ms)
            self.reporter.note(
                tr("{name}: linear probe {top1:.1%}, {ms:.1f} ms", name=chosen.name, top1=found.accuracy, ms=found.ms)
            )
            return found.accuracy

        names = [each.name for each in every]
        kept = phase.study.user_attrs.get(KEPT_NAMES)
        if kept is None:
            planned = [{CANDIDATE: each.name} for each in every]
            self.all_probed = phase.run(measure, planned, deadline=self._deadline(SHARES[0]))
        found = {trial.params[CANDIDATE]: trial for trial in phase.complete()}
        measured = [
            dataclasses.replace(each, accuracy=found[each.name].value or None, ms=found[each.name].user_attrs.get("ms"))
            if each.name in found
            else each
            for each in every
        ]
        candidates = sorted(measured, key=lambda each: -(each.accuracy or 0.0))
        if kept is None:  # once: a search that goes on later, or beside this one, trains the same
            phase.study.set_user_attr(KEPT_NAMES, [each.name for each in self._best_of(candidates)])
            kept = phase.study.user_attrs[KEPT_NAMES]
        self.kept = [next(each for each in candidates if each.name == name) for name in kept]
        return candidates

    @property
    def _labelled(self) -> list[Sample]:
        """The training and validation images that have a label."""
        return [sample for sample in (*self.samples.train, *self.samples.val) if sample.label >= 0]

    def _folds_of(self, samples: list[Sample]) -> np.ndarray:
        """The fold of each image for the probes: as many folds as the smallest class allows, up to five."""
        for folds in range(PROBE_FOLDS, 1, -1):
            with contextlib.suppress(DataError):  # a class has fewer groups
                return assign_folds(samples, self.samples.labels, folds, self.config.split.group, self.config.tune.seed)
        return np.random.default_rng(self.config.tune.seed).permutation(len(samples)) % 2

    def _best_of(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates to train: the best that are fast enough, and those that are as good within chance.

        The configuration's own network is one of them if it cannot be probed.

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
        margin = standard_error(best, len(self._labelled))
        kept = [each for each in fast if each.accuracy is not None and each.accuracy >= best - margin][:KEPT]
        own = [each for each in fast if each.accuracy is None and each.network == self.config.model.name]
        return [*kept, *own[:1]]

    # -- the second and third: trainings -----------------------------------------------------------------------------

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
            chosen, values = self.recipes.suggest(trial, kept)
            same = next((each for each in phase.complete() if each.params == trial.params), None)
            if same is not None:  # a small space is soon known
                for attribute in ("top1", "right"):
                    trial.set_user_attr(attribute, same.user_attrs[attribute])
                return float(same.value or 0.0)
            folder = self.folder / TRIALS / f"{name}-{trial.number + 1}"
            reporter = TrialReporter(self.reporter, trial, deadline, prunes=bool(most))
            try:
                config = apply(self.config, {**chosen.values, **values})
                if most:
                    config = shortened(config, self.config.tune.short)
                config = dataclasses.replace(config, output=str(folder))
                top1, loss, right = self._accuracy(config, reporter, rights=not most)
            except PplcError as error:
                if dict(trial.params) == planned[0]:  # nothing is wrong with this combination of values alone
                    raise
                self.reporter.note(tr("{name}: {reason}", name=f"{name} {trial.number + 1}", reason=error))
                raise load_optuna().TrialPruned from None
            finally:
                if most:
                    remove_weights(folder)
                gc.collect()
            trial.set_user_attr("top1", top1)
            trial.set_user_attr("right", right)
            self.reporter.note(trial_line(name, trial.number + 1, top1, chosen, values))
            return top1 - 1e-4 * min(loss, 10.0)  # a small validation list ties often; the loss decides

        def needed() -> float:
            seconds = [trial.user_attrs["seconds"] for trial in phase.complete()]
            return statistics.median(seconds) if seconds else expected

        return phase, phase.run(measure, planned, most=most, deadline=deadline, needed=needed)

    def _accuracy(self, config: Config, reporter: Reporter, *, rights: bool) -> tuple[float, float, str]:
        """Train; return accuracy, loss and which images were right, as a text of 0 and 1 if that is wanted."""
        if self.config.tune.folds is not None:
            result = train_folds(config, self.config.tune.folds, force=True, reporter=reporter, cache=self.cache)
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
        return len(self.samples.val) if self.config.tune.folds is None else len(self._labelled)

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
            better = base is None or is_better(final[0], base, self._images)
            if better:
                params, chosen = dict(final[0].params), final[0]
        candidate = next(each for each in kept if each.name == params[CANDIDATE])
        values = self.recipes.values(params)
        counted = short.trials()
        done = {trial.number for trial in short.complete()}
        history = [trial.user_attrs.get("top1") if trial.number in done else None for trial in counted]
        config = apply(self.config, {**candidate.values, **values})
        return TuneResult(
            dataclasses.replace(config, output=f"{self.config.output.removesuffix('-tune')}-tuned"),
            candidate,
            {key: value for key, value in values.items() if value != self.recipes.configured(key)},
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
            importance_of(short),
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
