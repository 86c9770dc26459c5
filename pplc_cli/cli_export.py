"""``pplc export``: as in :mod:`pplc_cli.cli`, only click and the standard library load here."""

from __future__ import annotations

from typing import Optional

import click

from .cli_options import common, overrides_of, run_option


@click.command()
@common
@run_option
@click.option("--output", metavar="FOLDER", help="The folder to write; default: inference_model in the run.")
def export(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    output: Optional[str],
) -> None:
    """Write the model that PaddleX 3 loads, and check it against the trained network."""
    from .exporting import export as write
    from .find import find_trained

    trained, config = find_trained(run, config_option, dataset, overrides_of(overrides))
    done = write(trained, config, output=output)
    click.echo(
        f"{done.folder} written: agrees with the trained network to {done.difference:.1e} on {done.images} pictures."
    )
    if done.in_paddlex:
        click.echo(f"PaddleX loads it with: paddlex.create_model({done.model_name!r}, model_dir={str(done.folder)!r})")
    else:
        click.echo(
            f"pplc predict and Paddle Inference run it. PaddleX has no {done.model_name}, and looks at the name alone: "
            "-o export.model_name=PP-LCNet_x1_0 writes one that it takes"
        )
