"""``pplc export``."""

from __future__ import annotations

import re
from typing import Any, Optional, Union

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, note
from pplc_cli.cli.options import config_options, overrides_of, require_folds, run_option


class _Size(click.ParamType):
    """Parses ``224``, ``192x320`` (height, width) or ``any``."""

    name = "size"

    def convert(
        self, value: str, param: Optional[click.Parameter], ctx: Optional[click.Context]
    ) -> Union[tuple[int, int], str]:
        found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", value.strip().lower())
        sides = tuple(int(side or found[1]) for side in found.groups()) if found else ()
        if not sides and value.strip().lower() != "any":
            self.fail(tr("expected a side, HEIGHTxWIDTH or any, got {value!r}", value=value), param, ctx)
        return (sides[0], sides[1]) if sides else "any"


@click.command(cls=Command)
@config_options
@run_option
@click.option("--output", metavar="FOLDER", help="The folder to write.  [default: inference_model in the run]")
@click.option(
    "--format",
    "formats",
    metavar="NAME",
    multiple=True,
    default=("paddle",),
    show_default=True,
    help="paddle, onnx or openvino; may be repeated: all formats go to the same folder.",
)
@click.option(
    "--precision",
    "precisions",
    metavar="NAME",
    multiple=True,
    help="Measure the accuracy of int8 or bfloat16; int8 also writes its files. May be repeated.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Stop with an error if a precision loses more top-1 than this.  [default: 0.01, one percentage point]",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Fix the batch size in the exported files.  [default: variable]",
)
@click.option(
    "--size",
    type=_Size(),
    metavar="SIZE",
    help="Image size: SIDE, HEIGHTxWIDTH or any.  [default: the size of the evaluation]",
)
@click.option("--simplify", is_flag=True, help="Fold batch norm and scales into the weights.")
@click.option(
    "--folds", is_flag=True, help="Export the networks of pplc train --folds as one: the mean of their probabilities."
)
@click.option("--soup", is_flag=True, help="With --folds: the mean of their weights, as fast as one network.")
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
    folds: bool,
    soup: bool,
) -> None:  # fmt: skip
    """Write the model for prediction, and check it.

    PaddleX 3 and other engines load the folder. The engine of each format, and the engine pplc, are compared with the
    trained network on validation images; if one differs, the command stops with an error and writes nothing.
    """
    from pplc_cli.cli.console.results import print_exported
    from pplc_cli.cli.locate import find_folds, find_trained
    from pplc_cli.exporting.export import export as write
    from pplc_cli.predict.engines.pplc import compilation_note

    values = overrides_of(overrides, export__max_accuracy_loss=max_loss)
    settings: dict[str, Any] = {
        "output": output,
        "formats": formats,
        "precisions": precisions,
        "batch": batch,
        "size": size,
        "simplify": simplify,
        "note": note,
    }
    if folds:
        from pplc_cli.cli.console.tuning import print_folds_export
        from pplc_cli.tuning.ensemble import export_folds

        folder = find_folds(run, config_option, dataset, values)
        note(compilation_note())
        print_folds_export(export_folds(folder, soup=soup, overrides=values, **settings))
        return
    require_folds(soup)
    trained, config = find_trained(run, config_option, dataset, values)
    note(compilation_note())
    print_exported(write(trained, config, **settings))
