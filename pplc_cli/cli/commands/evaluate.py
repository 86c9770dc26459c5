"""``pplc eval``."""

from __future__ import annotations

from typing import Optional

import click

from pplc_cli.cli.options import common, overrides_of, run_option


@click.command(name="eval")
@common
@run_option
@click.option("--split", "part", metavar="NAME", help="train, val or test; default: test, else val.")
@click.option("--data", metavar="FOLDER", help="A folder with one folder a class, instead of a list.")
@click.option("--output", metavar="FOLDER", help="The report's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    part: Optional[str],
    data: Optional[str],
    output: Optional[str],
    as_json: bool,
) -> None:
    """Measure a trained network: accuracy, per-class figures, confusion matrix, worst mistakes."""
    from pplc_cli.cli.console import results
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_trained
    from pplc_cli.training.evaluation.evaluate import evaluate as measure

    trained, config = find_trained(run, config_option, dataset, overrides_of(overrides, eval__split=part))
    with counter("measuring") as progress:
        found = measure(trained, config, data=data, output=output, progress=progress)
    results.print_evaluation(found, as_json)
