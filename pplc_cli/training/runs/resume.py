"""The folder of a run before its first step: made, cleaned, or found fit to go on with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from typing import Any, Optional

from pplc_cli.base.errors import CheckpointError
from pplc_cli.base.files import remove_leftovers, write_text
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import Sample
from pplc_cli.training.progress import Reporter
from pplc_cli.training.runs import checkpoint
from pplc_cli.training.runs.run_folder import RunFolder

# What may change between the parts of a resumed run without changing its result.
_FREE_KEYS = {
    "data": {"cache_mb", "workers"},
    "model": {"pretrained"},
    "distill": {"cache"},
    "train": {"log_interval_steps", "visualdl", "epochs"},
    "eval": {"split", "worst"},
}


def check_folder(
    run: RunFolder, config: Config, fingerprint: str, *, resume: bool, force: bool, reporter: Reporter
) -> Optional[dict[str, Any]]:
    """Whether a run can start or go on in the folder; nothing that is in it changes yet.

    Args:
        run: the folder.
        config: what will be trained.
        fingerprint: of the lists, see :func:`fingerprint_of`.
        resume: go on with what is there.
        force: replace what is there.
        reporter: told where there is nothing to go on with.

    Returns:
        The state to resume from, or None for a new run.

    Raises:
        CheckpointError: a run is there and neither was asked for, or it cannot be gone on with.
    """
    if run.exists() and not (resume or force):
        raise CheckpointError(
            f"{run.folder} holds a run already: --resume goes on with it, --force replaces it, "
            "--output FOLDER puts the new one elsewhere"
        )
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{run.folder}: cannot be made: {error.strerror}") from None
    state = read_state(run) if resume else None
    if state is not None:
        _check_resumable(run, config, fingerprint, state)
    elif resume:
        reporter.note(f"{run.folder} has no whole epoch yet; starting from the beginning")
    return state


def clear_folder(run: RunFolder, config: Config, state: Optional[dict[str, Any]]) -> None:
    """Make the folder ready for the first step: of an earlier run only what ``state`` goes on with stays."""
    remove_leftovers(run.folder)
    run.crash.unlink(missing_ok=True)
    if state is None:
        _remove_run(run)
    run.save_config(config)
    kept = [r for r in run.records() if state is not None and r.get("epoch", 0) <= state["epoch"]]
    write_text(run.log, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))


def read_state(run: RunFolder) -> Optional[dict[str, Any]]:
    """What the last whole epoch left, or None."""
    return checkpoint.load_info(run.last, "model") if run.exists() and run.last.exists() else None


def fingerprint_of(labels: Sequence[str], *lists: Sequence[Sample]) -> str:
    """A hash of classes and lists: a run goes on only with the data that it started with."""
    text = json.dumps([list(labels), [[(s.name, s.label) for s in samples] for samples in lists]])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check_resumable(run: RunFolder, config: Config, fingerprint: str, state: dict[str, Any]) -> None:
    old, new = state["config"], config.to_dict()
    changed = []
    for section in ("data", "model", "train", "distill", "eval"):
        for key, now in new[section].items():
            # A key that the run's version of pplc did not have was what its default says.
            before = old.get(section, {})
            then = before[key] if key in before else _default(getattr(config, section), key)
            if key not in _FREE_KEYS.get(section, ()) and json.dumps(then) != json.dumps(now):
                changed.append(f"{section}.{key}: {then!r} then, {now!r} now")
    if (config.train.schedule == "cosine" or config.train.progressive_from) and (
        old["train"]["epochs"] != config.train.epochs
    ):
        what = "a cosine schedule" if config.train.schedule == "cosine" else "progressive resizing"
        changed.append(f"train.epochs: {old['train']['epochs']} then, and {what} depends on it")
    if changed:
        raise CheckpointError(
            f"{run.folder} cannot be resumed with another recipe ({'; '.join(changed)}); "
            "undo the change, or start anew with --force or another --output"
        )
    if state["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{run.folder} cannot be resumed: the lists in {config.data.dir} have changed since it "
            "started; start anew with --force or another --output"
        )


def _default(section: Any, key: str) -> Any:
    """What a key meant before it existed."""
    if key == "accelerate":
        return False
    field = next(field for field in dataclasses.fields(section) if field.name == key)
    factory: Any = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _remove_run(run: RunFolder) -> None:
    """Remove what an earlier run left in the folder; nothing that is not ours."""
    for folder in (run.best, run.last, run.exported, run.visualdl):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (run.log, run.curves):
        file.unlink(missing_ok=True)
