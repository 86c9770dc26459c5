"""``pplc predict``: as in :mod:`pplc_cli.cli`, only click and the standard library load here."""

from __future__ import annotations

import sys
from typing import Optional

import click

from .cli_options import common, overrides_of, run_option


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@common
@run_option
@click.option("--model", metavar="FOLDER", help="An exported folder, ours or PaddleX's.")
@click.option("--threads", type=int, help="Default: physical cores.")
@click.option("--mkldnn/--no-mkldnn", default=None, help="oneDNN kernels (on).")
@click.option("--batch-size", type=int, help="Pictures that run together (8).")
@click.option("--top-k", type=int, help="Labels a picture (1).")
@click.option("--json", "style", flag_value="json", help="A line of JSON a picture.")
@click.option("--csv", "style", flag_value="csv", help="A line of CSV a picture.")
@click.option("--save", metavar="FOLDER", help="Save the pictures with their labels drawn in.")
@click.option("--show", is_flag=True, help="Open them in the system's viewer.")
def predict(
    inputs: tuple[str, ...],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    model: Optional[str],
    threads: Optional[int],
    mkldnn: Optional[bool],
    batch_size: Optional[int],
    top_k: Optional[int],
    style: Optional[str],
    save: Optional[str],
    show: bool,
) -> None:
    """Say what is on pictures: files, folders, globs, list files, addresses, or - for standard input.

    The exit status is 1 where a picture could not be used; the others are predicted all the same.
    """
    from . import ui
    from .find import find_predictor

    flags = overrides_of(
        overrides,
        predict__threads=threads,
        predict__mkldnn=mkldnn,
        predict__batch_size=batch_size,
        predict__top_k=top_k,
    )
    predictor, settings = find_predictor(model, run, config_option, dataset, flags)
    from .inputs import expand

    answers = predictor.predict(expand(inputs), top_k=settings.top_k, keep_images=bool(save or show))
    failed = ui.print_predictions(answers, predictor, style or "text", save, show)
    if failed:
        sys.exit(1)
