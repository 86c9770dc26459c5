"""Write what a search found as a configuration, with comments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import quoted, write_text
from pplc_cli.config.sections import Config
from pplc_cli.training.evaluation.metrics import accuracy_text
from pplc_cli.tuning.result import TuneResult


def write_tuned(result: TuneResult, file: Path) -> None:
    """Write a configuration that names only what differs from the defaults, with what was found above it.

    Raises:
        PplcError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# {line}" if line else "#" for line in [*findings(result), "", *_next(file)]]
    text = yaml.safe_dump(changed(result.config), allow_unicode=True, sort_keys=False)
    write_text(file, "\n".join(lines) + "\n" + text)


def findings(result: TuneResult) -> list[str]:
    """What the search found, a sentence a line."""
    candidate, lines = result.candidate, []
    speed = "" if candidate.ms is None else tr(", {ms:.1f} ms for one image on this machine", ms=candidate.ms)
    probed = "" if candidate.accuracy is None else tr(", linear probe {top1:.1%}", top1=candidate.accuracy)
    lines.append(tr("Network: {name}{probed}{speed}.", name=candidate.name, probed=probed, speed=speed))
    if result.values:
        values = ", ".join(f"{key}: {_shown(value)}" for key, value in result.values.items())
        lines.append(tr("Recipe: {values}; all else as before.", values=values))
    else:
        lines.append(tr("Recipe: as before."))
    if result.accuracy is not None:
        top1 = accuracy_text(result.accuracy, result.images)
        lines.append(tr("Validation accuracy: {top1} of {images} images.", top1=top1, images=result.images))
    if result.own is not None and result.better:
        lines.append(tr("The recipe before has {own:.1%}: the difference is more than chance.", own=result.own))
    elif result.trials > 1:
        lines.append(tr("No other recipe was better by more than chance."))
    lines.append(
        tr(
            "Searched: {candidates} networks and sizes, {trials} short trainings ({stopped} stopped early), {full} in "
            "full.",
            candidates=len(result.candidates),
            trials=result.trials,
            stopped=result.stopped,
            full=result.full,
        )
    )
    if not result.finished:
        lines.append(tr("The time was over before the search was; --resume goes on with it."))
    lines.append(tr("The search chose by these images, so that this accuracy is too high. It never saw the test list."))
    return lines


def _next(file: Path) -> list[str]:
    return [f"  pplc train {quoted(file.as_posix())}", "  pplc eval"]


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def changed(config: Config) -> dict[str, Any]:
    """The keys of a configuration that differ from the defaults, as plain data that reads back as the same."""
    return {name: value for name, value in _changed(config).items() if name != "tune"}


def _changed(section: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        factory: Any = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if value != default:
            found[field.name] = _changed(value) if dataclasses.is_dataclass(value) else value
    return found
