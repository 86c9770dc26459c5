"""``pplc label``: as in :mod:`pplc_cli.cli.main`, only click and the standard library load here."""

from __future__ import annotations

from typing import Optional

import click


@click.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="RUN",
    help="A run, an exported folder or an ONNX file; several are averaged. Default: the latest run.",
)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="The least probability."
)
@click.option("--per-class", type=click.IntRange(1), help="At most so many images of a class, the surest.")
@click.option(
    "--zoom",
    "zooms",
    type=click.FloatRange(1, 4),
    multiple=True,
    help="Look at the middle, so many times enlarged; may be given several times. Default: 1 and 1.15.",
)
@click.option("--flip/--no-flip", default=True, help="Look at mirror images too (on).")
@click.option("--output", metavar="FILE", help="The list; default: extra_list.txt in the first run's folder.")
@click.option("--threads", type=click.IntRange(1), help="Default: physical cores.")
def label(
    folder: str,
    models: tuple[str, ...],
    threshold: float,
    per_class: Optional[int],
    zooms: tuple[float, ...],
    flip: bool,
    output: Optional[str],
    threads: Optional[int],
) -> None:
    """Label the images below DIR with trained models, and list those that they are sure of.

    pplc train takes the list with -o data.extra_list=FILE. Look at the contact sheet first.
    """
    from pplc_cli.base.files import user_path
    from pplc_cli.cli.console import results
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_run
    from pplc_cli.training.distill.pseudo_labels import ZOOMS, pseudo_label

    named = models or (str(find_run().folder),)
    if output is None and not (user_path(named[0]) / "best_model").is_dir():
        raise click.UsageError("--output: expected a file, since the first model is no run")
    with counter("labelling") as progress:
        found = pseudo_label(
            folder,
            named,
            output or f"{named[0]}/extra_list.txt",
            threshold=threshold,
            per_class=per_class,
            zooms=zooms or ZOOMS,
            flip=flip,
            threads=threads,
            progress=progress,
        )
    results.print_labelling(found)
