"""``pplc label``."""

from __future__ import annotations

from typing import Optional

import click
from click.core import ParameterSource

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command


@click.command(cls=Command)
@click.argument("folder", metavar="DIR")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="A trained model: a run, an exported folder or an ONNX file; may be repeated: probabilities are averaged.  "
    "[default: the latest run]",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Label only images whose probability is at least this.",
)
@click.option(
    "--per-class",
    type=click.IntRange(1),
    help="At most this many images per class, those with the highest probabilities.  [default: all]",
)
@click.option(
    "--zoom",
    "zooms",
    type=click.FloatRange(1, 4),
    multiple=True,
    help="Enlarge the image by this factor and classify its middle; may be repeated: probabilities are averaged.  "
    "[default: 1 and 1.15]",
)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Also classify mirrored images.")
@click.option(
    "--next",
    "count",
    type=click.IntRange(1),
    metavar="N",
    help="Instead of labelling: choose the N images that would teach the model most, for you to label.",
)
@click.option(
    "--output",
    metavar="FILE",
    help="The list to write.  [default: extra_list.txt, with --next next.csv, in the folder of the first --model]",
)
@click.option("--threads", type=click.IntRange(1), help="Threads for the models.  [default: physical cores]")
def label(
    folder: str,
    models: tuple[str, ...],
    threshold: float,
    per_class: Optional[int],
    zooms: tuple[float, ...],
    flip: bool,
    count: Optional[int],
    output: Optional[str],
    threads: Optional[int],
) -> None:
    """Label images with trained models.

    The list has the images below DIR whose predicted label has a high probability. Check the contact sheet beside the
    list, then train with -o data.extra_list=FILE. Images in the models' own training, validation and test lists are
    skipped.

    With --next, the list is a table of the images that are uncertain and unlike each other. Fill in the column label,
    then train with -o data.extra_list=FILE.
    """
    from pplc_cli.base.storage.files import user_path
    from pplc_cli.cli.console import results
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_latest_run
    from pplc_cli.training.distill.pseudo_labels import ZOOMS, pseudo_label

    named = models or (str(find_latest_run().folder),)
    if output is None and not (user_path(named[0]) / "best_model").is_dir():
        raise click.UsageError(tr("--output: expected a file, since the first --model is not a run"))
    if count is not None:
        if len(named) > 1:
            raise click.UsageError(tr("--next: expected one --model"))
        given = click.get_current_context().get_parameter_source
        for name in ("threshold", "per_class", "zooms", "flip"):
            if given(name) is ParameterSource.COMMANDLINE:
                option = {"zooms": "zoom"}.get(name, name.replace("_", "-"))
                raise click.UsageError(tr("--{option} is for labelling; --next does not use it", option=option))
        from pplc_cli.analysis.label_next import suggest_images

        with counter(tr("comparing images")) as progress:
            suggested = suggest_images(
                folder, named[0], count, output or f"{named[0]}/next.csv", threads=threads or 0, progress=progress
            )
        results.print_suggestions(suggested)
        return
    with counter(tr("labelling")) as progress:
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
