"""Prepare a run's folder before the first step: create, replace or resume it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from typing import Any, Optional

from pplc_cli.base.errors import CheckpointError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import remove_leftovers, write_text
from pplc_cli.config.own_code import code_of
from pplc_cli.config.sections import Config
from pplc_cli.models.options import ModelOptions
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.samples import Samples
from pplc_cli.training.world import World, is_main_process

# Keys that may change when a run is resumed, because they do not change its result.
_FREE_KEYS = {
    "data": {"cache_mb", "workers"},
    "model": {"pretrained"},
    "distill": {"cache"},
    "train": {"log_interval_steps", "visualdl", "epochs", "early_stop", "early_stop_patience"},
    "eval": {"split", "worst"},
}


def check_start(
    run: RunFolder, config: Config, samples: Samples, *, resume: bool, force: bool, note: Callable[[str], None]
) -> Optional[dict[str, Any]]:
    """Check that a run can start, or continue, in its folder; nothing in it changes yet.

    Args:
        run: the folder.
        config: the configuration to train.
        samples: its images.
        resume: continue the run in the folder.
        force: replace the run in the folder.
        note: called with a remark if there is nothing to resume.

    Returns:
        The checkpoint's JSON to resume from; None for a new run, and in all processes but the first one.

    Raises:
        CheckpointError: the folder holds a run that neither ``resume`` nor ``force`` covers, or that cannot be resumed.
    """
    if not is_main_process():
        return None
    if run.folds.exists():
        raise CheckpointError(
            tr("{folder} holds the folds of pplc train --folds: choose another folder with --output", folder=run.folder)
        )
    if run.exists() and not (resume or force):
        raise CheckpointError(
            tr(
                "{folder} already holds a run: continue it with --resume, replace it with --force, or "
                "choose another folder with --output",
                folder=run.folder,
            )
        )
    start = _read_last(run) if resume else None
    if start is None and not force:
        _check_others(run)
    if start is not None:
        _check_resumable(run, config, samples.fingerprint, start)
    elif resume:
        note(tr("{folder} has no complete epoch yet; starting from the beginning", folder=run.folder))
    return start


def agree_on_start(
    world: World, run: RunFolder, config: Config, samples: Samples, start: Optional[dict[str, Any]]
) -> Optional[dict[str, Any]]:
    """Make every process start like process 0; each process reads the checkpoint itself.

    Args:
        world: the processes.
        run: the folder.
        config: the configuration to train.
        samples: this process's lists, which must be those of process 0.
        start: what :func:`check_start` returned.

    Raises:
        TrainError: this process has other lists or another checkpoint than process 0.
    """
    epoch, fingerprint = world.broadcast_object([start["epoch"] if start else None, samples.fingerprint])
    if fingerprint != samples.fingerprint:
        raise TrainError(
            tr(
                "process {rank}: the lists in {dataset} differ from those of process 0; every machine needs "
                "the same data set",
                rank=world.rank,
                dataset=config.data.dir,
            )
        )
    if start is None and epoch is not None:
        start = _read_last(run)
        if start is None or start["epoch"] != epoch:
            raise TrainError(
                tr(
                    "process {rank}: {folder} has no checkpoint of epoch {epoch}; every machine needs a copy "
                    "of the run's folder",
                    rank=world.rank,
                    folder=run.folder,
                    epoch=epoch,
                )
            )
    return start


def clear_folder(run: RunFolder, config: Config, start: Optional[dict[str, Any]]) -> None:
    """Prepare the folder for the first step: remove all of an earlier run that ``start`` does not continue.

    :func:`check_start` has refused files that are not of a run.
    """
    remove_leftovers(run.folder)
    run.crash.unlink(missing_ok=True)
    if start is None:
        _remove_run(run)
    run.save_config(config)
    kept = [r for r in run.records() if start is not None and r.get("epoch", 0) <= start["epoch"]]
    write_text(run.log, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))


def _check_others(run: RunFolder) -> None:
    """Refuse a folder with files that training would replace, unless a run without a whole epoch wrote them.

    Raises:
        CheckpointError: it has some.
    """
    unfinished = [run.config_file, run.log, run.crash, run.visualdl]
    finished = [run.best, run.last, run.exported, run.curves]
    others = [path.name for path in (finished if run.is_marked() else unfinished + finished) if path.exists()]
    if others:
        raise CheckpointError(
            tr(
                "{folder} is not a run, but has {others}, which training would replace: choose another "
                "folder with --output, or replace them with --force",
                folder=run.folder,
                others=", ".join(others),
            )
        )


def _read_last(run: RunFolder) -> Optional[dict[str, Any]]:
    """The JSON of the last whole epoch's checkpoint, or None."""
    if not (run.exists() and run.last.exists()):
        return None
    info = checkpoint.load_info(run.last, "model")
    checkpoint.require(info, ("epoch", "best", "stale_epochs", "config", "fingerprint"), run.last)
    best = info["best"]
    if best is not None and not all(isinstance(best.get(k), (int, float)) for k in ("epoch", "val_top1", "val_loss")):
        raise CheckpointError(tr("{folder} is damaged: its JSON file has no scores of the best epoch", folder=run.last))
    return info


def _check_resumable(run: RunFolder, config: Config, fingerprint: str, start: dict[str, Any]) -> None:
    checkpoint.check_code(str(run.folder), start.get("code"), code_of(config))
    # A damaged section counts as one without keys.
    old = {name: section for name, section in start["config"].items() if isinstance(section, dict)}
    batch = old.get("train", {}).get("batch_size")
    if config.train.batch_size == "auto" and isinstance(batch, int) and batch > 0:
        config = dataclasses.replace(config, train=config.train.with_batch_size(batch))
    new = config.to_dict()
    changed = []
    for section in ("data", "model", "train", "distill", "eval"):
        for key, now in new[section].items():
            # A key that the run's version of pplc did not have yet has its default.
            before = old.get(section, {})
            then = before[key] if key in before else _default(getattr(config, section), key)
            if key not in _FREE_KEYS.get(section, ()) and json.dumps(then) != json.dumps(now):
                name = f"{section}.{key}"
                changed.append(tr("{key}: {then!r} then, {now!r} now", key=name, then=then, now=now))
    epochs = old.get("train", {}).get("epochs")
    if epochs != config.train.epochs and config.train.schedule == "cosine":
        changed.append(tr("train.epochs: {epochs} then, and a cosine schedule depends on it", epochs=epochs))
    elif epochs != config.train.epochs and config.train.progressive_from:
        changed.append(tr("train.epochs: {epochs} then, and progressive resizing depends on it", epochs=epochs))
    if changed:
        raise CheckpointError(
            tr(
                "{folder} cannot be resumed with another recipe ({changed}); undo the change, or start "
                "anew with --force or another --output",
                folder=run.folder,
                changed="; ".join(changed),
            )
        )
    if start["fingerprint"] != fingerprint:
        raise CheckpointError(
            tr(
                "{folder} cannot be resumed: the lists in {dataset} have changed since it started; start "
                "anew with --force or another --output",
                folder=run.folder,
                dataset=config.data.dir,
            )
        )


_BEFORE: dict[str, Any] = {"accelerate": False, "transfer": "full", "average": "none"}


def _default(section: Any, key: str) -> Any:
    """The value of a key that stands for the behaviour of versions without it."""
    if key in _BEFORE:
        return _BEFORE[key]
    field = next(field for field in dataclasses.fields(section) if field.name == key)
    factory: Any = field.default_factory
    value: Any = field.default if factory is dataclasses.MISSING else factory()
    if value is dataclasses.MISSING:
        return None
    return dataclasses.asdict(value) if isinstance(value, ModelOptions) else value


def _remove_run(run: RunFolder) -> None:
    """Remove an earlier run's files from the folder, and reports on its weights; any other files stay."""
    reports = [metrics.parent for metrics in run.folder.glob("eval_*/metrics.json")]
    for folder in (run.best, run.last, run.exported, run.visualdl, *reports):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (run.log, run.curves):
        file.unlink(missing_ok=True)
