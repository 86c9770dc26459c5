"""``pplc eval`` and ``pplc explain``."""

from __future__ import annotations

import sys
from typing import Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, echo
from pplc_cli.cli.options import config_options, overrides_of, require_folds, run_option


@click.command(name="eval", cls=Command)
@config_options
@run_option
@click.option("--split", "part", metavar="NAME", help="The list: train, val or test.  [default: test, else val]")
@click.option(
    "--data",
    metavar="FOLDER",
    help="Evaluate the images of this folder, with one subfolder per class, instead of a list.",
)
@click.option("--output", metavar="FOLDER", help="The folder for the report.  [default: eval_NAME in the run]")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--folds", is_flag=True, help="Evaluate the networks of pplc train --folds together, on the test list.")
@click.option("--soup", is_flag=True, help="With --folds: average their weights, not their probabilities.")
def evaluate(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    part: Optional[str],
    data: Optional[str],
    output: Optional[str],
    as_json: bool,
    folds: bool,
    soup: bool,
) -> None:
    """Measure the accuracy of a trained network.

    The report has precision, recall and F1 per class, the confusion matrix, all predictions, and the worst mistakes as
    a contact sheet. The exit status is 1 if an image could not be used; the others are still measured.
    """
    from pplc_cli.cli.console import results
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_trained
    from pplc_cli.training.evaluation.evaluate import evaluate as measure

    values = overrides_of(overrides, eval__split=part)
    if folds:
        from pplc_cli.cli.locate import find_folds
        from pplc_cli.tuning.ensemble import evaluate_folds

        folder = find_folds(run, config_option, dataset, values)
        with counter(tr("evaluating")) as progress:
            found = evaluate_folds(folder, soup=soup, overrides=values, data=data, output=output, progress=progress)
    else:
        require_folds(soup)
        trained, config = find_trained(run, config_option, dataset, values)
        with counter(tr("evaluating")) as progress:
            found = measure(trained, config, data=data, output=output, progress=progress)
    results.print_evaluation(found, as_json)
    if found.metrics["unusable"]:
        sys.exit(1)


@click.command(cls=Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@config_options
@run_option
@click.option("--label", metavar="NAME", help="The class to explain.  [default: the predicted one]")
@click.option(
    "--method",
    type=click.Choice(["layercam", "gradcam"]),
    default="layercam",
    show_default=True,
    help="LayerCAM is sharper, Grad-CAM better known.",
)
@click.option("--output", metavar="FOLDER", help="The folder for the pictures.  [default: explain in the run]")
def explain(
    inputs: tuple[str, ...],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    label: Optional[str],
    method: str,
    output: Optional[str],
) -> None:
    """Show where a trained network looks.

    Writes a picture for each image: what the network sees, and a heat map of what its answer rests on. An INPUT is a
    file, a folder, a glob, a list or a URL. The exit status is 1 if an image could not be used.
    """
    from pplc_cli.analysis.heat_maps import Explainer, HeatMapFolder
    from pplc_cli.base.errors import ImageError
    from pplc_cli.base.text import visible
    from pplc_cli.cli.locate import find_trained
    from pplc_cli.predict.inputs.expand import expand

    trained, _ = find_trained(run, config_option, dataset, overrides_of(overrides))
    explainer = Explainer(trained, method=method)
    explainer.check_label(label)
    folder = HeatMapFolder(output or trained.folder / "explain")
    failed = 0
    for source in expand(inputs):
        try:
            found = explainer.explain(source, label=label)
        except ImageError as error:
            failed += 1
            echo(visible(f"{source.name}: {error}"), err=True)
            continue
        file = folder.save(found)
        text = tr("{label} {score:.4f}", label=found.label, score=found.score)
        if found.label != found.predicted:
            text = tr("{text} (predicted: {label})", text=text, label=found.predicted)
        echo(visible(f"{found.path}: {text}: {file}"))
    if failed:
        sys.exit(1)
