"""``pplc export``: as in :mod:`pplc_cli.cli.main`, only click and the standard library load here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Optional, Union

import click

from pplc_cli.cli.options import common, overrides_of, run_option

if TYPE_CHECKING:
    from pplc_cli.exporting.result import ExportResult


class _Size(click.ParamType):
    """``224``, ``192x320`` (height, width) or ``any``."""

    name = "size"

    def convert(
        self, value: str, param: Optional[click.Parameter], ctx: Optional[click.Context]
    ) -> Union[tuple[int, int], str]:
        found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", value.strip().lower())
        sides = tuple(int(side or found[1]) for side in found.groups()) if found else ()
        if not sides and value.strip().lower() != "any":
            self.fail(f"expected a side, HEIGHTxWIDTH or any, got {value!r}", param, ctx)
        return (sides[0], sides[1]) if sides else "any"


@click.command()
@common
@run_option
@click.option("--output", metavar="FOLDER", help="The folder to write; default: inference_model in the run.")
@click.option(
    "--format",
    "formats",
    metavar="NAME",
    multiple=True,
    default=("paddle",),
    show_default=True,
    help="paddle, onnx or openvino; may stand several times, all go to the same folder.",
)
@click.option(
    "--precision",
    "precisions",
    metavar="NAME",
    multiple=True,
    help="int8 or bfloat16: prints what it costs in accuracy; int8 writes a file more.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="The top-1 that a precision may cost; default 0.01, one point.",
)
@click.option(
    "--batch", type=click.IntRange(1), metavar="N", help="Images that run together, always; default: any number."
)
@click.option("--size", type=_Size(), metavar="SIZE", help="Side, HEIGHTxWIDTH or any; default: the evaluation's.")
@click.option("--simplify", is_flag=True, help="Fold batch norm and factors into the weights.")
def export(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    output: Optional[str],
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    max_loss: Optional[float],
    batch: Optional[int],
    size: Union[tuple[int, int], str, None],
    simplify: bool,
) -> None:  # fmt: skip
    """Write the model that PaddleX 3 and other engines load, and check it against the trained network."""
    from pplc_cli.cli.locate import find_trained
    from pplc_cli.exporting.export import export as write
    from pplc_cli.predict.engines.pplc import to_be_compiled

    trained, config = find_trained(
        run, config_option, dataset, overrides_of(overrides, export__max_accuracy_loss=max_loss)
    )
    if note := to_be_compiled():
        click.echo(note, err=True)
    done = write(
        trained,
        config,
        output=output,
        formats=formats,
        precisions=precisions,
        batch=batch,
        size=size,
        simplify=simplify,
    )
    _report(done)


def _report(done: ExportResult) -> None:
    engines = ", ".join(done.differences)
    click.echo(
        f"{done.folder} written: agrees with the trained network to {done.difference:.1e} on {done.images} images "
        f"({engines})."
    )
    for one in done.accuracies:
        click.echo(
            f"{one.precision} with {one.engine}: top-1 {one.top1:.1%}, float32 {one.before:.1%}, on {done.measured}"
        )
    if "paddle" not in done.formats:
        return
    if done.in_paddlex:
        click.echo(f"PaddleX loads it with: paddlex.create_model({done.model_name!r}, model_dir={str(done.folder)!r})")
    else:
        click.echo(
            f"pplc predict and Paddle Inference run it. PaddleX has no {done.model_name}, and looks at the name alone: "
            "-o export.model_name=PP-LCNet_x1_0 writes one that it takes"
        )
