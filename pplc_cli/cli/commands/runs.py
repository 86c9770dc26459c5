"""``pplc runs`` and its commands, and ``pplc report``."""

from __future__ import annotations

import json
from typing import Any, Optional

import click

from pplc_cli.base.language.messages import tr, use_language
from pplc_cli.cli.command import Command, Group, echo


class _ListByDefault(Group):
    """A group whose first command runs if none is named: ``pplc runs output`` is ``pplc runs list output``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {"--help", "--quiet", "-q", "--verbose", "-v"}
        if not any(name in self.commands for name in args[:1]) and not options & set(args[:1]):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def runs() -> None:
    """List trained runs, and compare two of them.

    pplc runs FOLDER is pplc runs list FOLDER.
    """


@runs.command(name="list")
@click.argument("folder", default="output", metavar="[FOLDER]")
@click.option(
    "--sort",
    type=click.Choice(["date", "val", "test", "network", "time", "size"]),
    default="date",
    show_default=True,
    help="The newest, most accurate, shortest or smallest first.",
)
@click.option("--network", metavar="TEXT", help="Only runs whose network's name contains this.")
@click.option("--data", metavar="HASH", help="Only runs on the data whose hash begins like this.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with all settings.")
def runs_list(folder: str, sort: str, network: Optional[str], data: Optional[str], as_json: bool) -> None:
    """List the runs below a folder.

    FOLDER is output if it is not given. Runs with the same data hash were trained on the same lists.
    """
    from pplc_cli.analysis.runs import list_runs
    from pplc_cli.cli.console.runs import print_runs, print_unreadable

    found = list_runs(folder, sort=sort, network=network, data=data)
    print_unreadable(found)
    if as_json:
        click.echo(json.dumps([run.to_dict() for run in found.runs], ensure_ascii=False))
    else:
        print_runs(found)


@runs.command(name="compare")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def runs_compare(first: str, second: str, as_json: bool) -> None:
    """Compare two runs on the same images.

    Shows what differs in configuration and data, and whether one is better by more than chance: McNemar's exact test
    on the test list, or on the validation list if there is none.
    """
    from pplc_cli.analysis.runs import compare_runs
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.console.runs import print_comparison

    with counter(tr("comparing")) as progress:
        found: Any = compare_runs(first, second, progress=progress)
    if as_json:
        click.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        print_comparison(found)


@click.command(cls=Command)
@click.argument("run", required=False, metavar="[RUN]")
@click.option("--output", metavar="FILE", help="The file to write.  [default: report.html in the run]")
@click.option("--lang", type=click.Choice(["en", "zh"]), help="Language of the report.  [default: that of pplc]")
@click.option(
    "--check", metavar="FOLDER", help="A check of the data set.  [default: where pplc check writes it, if it did]"
)
@click.option("--force", is_flag=True, help="Replace a file of --output that is not a report.")
def report(run: Optional[str], output: Optional[str], lang: Optional[str], check: Optional[str], force: bool) -> None:
    """Write a run into one HTML file.

    Pictures and all else are inside the file, so that it can be mailed: what was trained on, curves, accuracy by
    class, mistakes with heat maps, how sure the scores are, what a check of the data found, and the speed of the
    exported engines. RUN is the latest run if it is not given.
    """
    from pplc_cli.analysis.report import write_report_page
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_latest_run
    from pplc_cli.training.runs.run_folder import find_run

    trained = find_run(run) if run is not None else find_latest_run()
    if lang is not None:
        use_language(lang)
    with counter(tr("evaluating")) as progress:
        file = write_report_page(trained, output, check=check, force=force, progress=progress)
    echo(tr("{file} written, {size:.1f} MB", file=file, size=file.stat().st_size / 1e6))
