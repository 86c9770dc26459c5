"""Print what a check of a data set found."""

from __future__ import annotations

from pplc_cli.analysis.check import KINDS, NEIGHBOURS, CheckReport
from pplc_cli.analysis.check_files import advice, described, titles
from pplc_cli.base.language.messages import tr
from pplc_cli.base.text import visible
from pplc_cli.cli.command import echo
from pplc_cli.cli.console.layout import Column, print_table, say

SHOWN = 10  # files of a kind that are named
IMBALANCE = 5  # times as many images in the largest class as in the smallest


def print_check(report: CheckReport) -> None:
    """Print the images by class, general facts, and the findings by kind with what to do."""
    parts = list(report.counts)
    heads = [tr("images") if part == "all" else part for part in parts]
    rows = [[label, *(str(report.counts[part][row]) for part in parts)] for row, label in enumerate(report.labels)]
    totals = [tr("all"), *(str(sum(report.counts[part])) for part in parts)]
    print_table([Column(tr("class"), text=True), *map(Column, heads)], rows, [totals])
    by_class = [sum(report.counts[part][row] for part in parts) for row in range(len(report.labels))]
    if min(by_class) and max(by_class) > IMBALANCE * min(by_class):
        say(
            tr(
                "The largest class has {times:.0f} times as many images as the smallest; train.class_weights: balanced "
                "makes up for it.",
                times=max(by_class) / min(by_class),
            )
        )
    few = [label for label, count in zip(report.labels, by_class) if count <= NEIGHBOURS]
    if few:
        say(
            tr(
                "Classes with too few images to find outliers and wrong labels (fewer than {least}): {names}.",
                least=NEIGHBOURS + 1,
                names=visible(", ".join(few[:SHOWN]) + (", …" if len(few) > SHOWN else "")),
            )
        )
    say(
        tr(
            "{kinds}; width {width}, height {height} pixels; {turned:,} turned by EXIF, {grey:,} without colour. "
            "Compared by {network}.",
            kinds=", ".join(f"{kind} {count:,}" for kind, count in report.kinds.items()),
            width=_range(report.sides["width"]),
            height=_range(report.sides["height"]),
            turned=report.turned,
            grey=report.grey,
            network=report.network,
        )
    )
    if not report.findings:
        say(tr("Nothing suspicious was found."))
    for kind in KINDS:
        found = report.of_kind(kind)
        if not found:
            continue
        echo("")
        say(tr("{title} ({count:,}): {advice}", title=titles()[kind], count=len(found), advice=advice(kind)))
        for finding in found[:SHOWN]:
            echo(visible(f"  {finding.file}: {described(finding)}"))
        if len(found) > SHOWN:
            echo(tr("  and {count:,} more", count=len(found) - SHOWN))


def _range(side: list[int]) -> str:
    """Smallest, median and largest length of a side."""
    low, median, high = side
    if low == high:
        return str(low)
    return tr("{low} to {high}, median {median}", low=low, high=high, median=median)
