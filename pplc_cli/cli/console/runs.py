"""Print runs and their comparison."""

from __future__ import annotations

import json
from typing import Any, Optional

from pplc_cli.analysis.runs import RunComparison, RunList
from pplc_cli.base.language.messages import tr, trn
from pplc_cli.base.text import visible
from pplc_cli.cli.command import echo, note
from pplc_cli.cli.console.layout import Column, print_table, say
from pplc_cli.cli.console.progress import duration

SHOWN = 20  # images that are named
CHANCE = 0.05  # p-values below are called a difference


def print_unreadable(found: RunList) -> None:
    """Name the runs that are damaged, on standard error."""
    for folder, reason in found.unreadable:
        note(tr("left out: {folder}: {reason}", folder=folder, reason=reason))


def print_runs(found: RunList) -> None:
    """Print a table of runs, with the settings in which they differ."""
    differences = found.differences()
    rows = [
        [
            str(run.folder),
            run.network,
            _percent(run.val_top1),
            _percent(run.test_top1),
            "{}/{}".format(*run.epochs),
            duration(run.seconds),
            f"{run.megabytes:.1f}",
            run.data or "?",
            run.date.strftime("%Y-%m-%d %H:%M"),
            ", ".join(
                f"{key}={_short(value)}" for key, value in differences[run.folder].items() if key != "model.name"
            ),
        ]
        for run in found.runs
    ]
    columns = [
        Column(tr("run"), text=True),
        Column(tr("network"), text=True),
        Column(tr("val %")),
        Column(tr("test %")),
        Column(tr("epochs"), optional=2),
        Column(tr("time"), optional=3),
        Column("MB", optional=4),
        Column(tr("data"), optional=1),
        Column(tr("date"), optional=5),
        Column(tr("differs in"), text=True, optional=6),
    ]
    print_table(columns, rows)
    if len({run.data for run in found.runs}) > 1:
        say(tr("Runs with another data hash were trained on other lists; their figures cannot be compared."))


def print_comparison(found: RunComparison) -> None:
    """Print what differs between two runs, and whether the difference in accuracy is more than chance."""
    first, second = found.runs
    if found.settings:
        rows = [[key, _short(a), _short(b)] for key, (a, b) in found.settings.items()]
        heads = [tr("setting"), str(first.folder), str(second.folder)]
        print_table([Column(head, text=True) for head in heads], rows)
    else:
        say(tr("Both runs have the same configuration."))
    if not found.same_data:
        say(
            tr(
                "They were trained on other lists ({first}, {second}), so their accuracies are not compared: the "
                "images that test one may have trained the other.",
                first=first.data or "?",
                second=second.data or "?",
            )
        )
        return
    for run, top1, only in zip(found.runs, found.top1, found.only):
        echo(
            tr(
                "{folder}: top-1 {top1:.1%} of {images} images of the {part} list; alone right on {only}",
                folder=run.folder,
                top1=top1,
                images=found.images,
                part=found.part,
                only=only,
            )
        )
    better = first if found.top1[0] > found.top1[1] else second
    if found.p_value < CHANCE:
        say(tr("{folder} is better by more than chance (p = {p:.3g}).", folder=better.folder, p=found.p_value))
    else:
        say(tr("The difference may be chance (p = {p:.3g}, McNemar's exact test).", p=found.p_value))
    for one in found.disagreements[:SHOWN]:
        text = tr("  {name}: {label}; {first} against {second}", name=one.name, label=one.label, first=one.answers[0],
                  second=one.answers[1])  # fmt: skip
        echo(visible(text))
    if len(found.disagreements) > SHOWN:
        count = len(found.disagreements) - SHOWN
        echo(trn("  and {count:,} more image", "  and {count:,} more images", count))


def _percent(share: Optional[float]) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _short(value: Any) -> str:
    """A setting as YAML would show it, cut to what a table can hold."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
