"""The command line: it parses, calls the library once, and prints. Only click and the standard library load here."""

from __future__ import annotations

import sys
from typing import Any, Optional

import click

from pplc_cli import __version__
from pplc_cli.cli.commands.bench import bench
from pplc_cli.cli.commands.export import export
from pplc_cli.cli.commands.label import label
from pplc_cli.cli.commands.networks import compare, models, profile
from pplc_cli.cli.commands.predict import predict
from pplc_cli.cli.commands.train import distill, train
from pplc_cli.cli.commands.weights import weights
from pplc_cli.cli.options import common, overrides_of, run_option


class _Group(click.Group):
    """Turns every error that a user can cause into one message and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from pplc_cli.base.errors import PplcError

        try:
            return super().invoke(ctx)
        except PplcError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error
        except MemoryError as error:
            raise click.ClickException("out of memory; try a smaller batch size (-o train.batch_size=4)") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pplc")
def cli() -> None:
    """Train, export and run light image classifiers on computers without a GPU.

    \b
    pplc split --dataset pandatiger       cut a folder of classes into lists
    pplc train configs/pandatiger.yaml    train PP-LCNet
    pplc eval                             measure it
    pplc export                           write the model that PaddleX loads
    pplc predict img.jpg                  ask it
    """


@cli.command()
@click.argument("folder")
@click.option("--output", metavar="FILE", help="The YAML to write; default: configs/NAME.yaml.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(folder: str, output: Optional[str], force: bool) -> None:
    """Write a commented configuration for the data set FOLDER."""
    from pathlib import Path

    from pplc_cli.base.files import user_path
    from pplc_cli.config.starter import write_config

    file = write_config(folder, output or Path("configs") / f"{user_path(folder).resolve().name}.yaml", force=force)
    click.echo(f"{file} written. Next: pplc split --config {file}")


@cli.command()
@common
@click.option("--val", type=float, help="Share of each class for validation (0.2).")
@click.option("--test", type=float, help="Share of each class kept for testing (0.1).")
@click.option("--seed", type=int, help="Another seed gives another split (0).")
@click.option("--group", metavar="REGEX", help="Pictures whose paths match with the same (group) stay together.")
@click.option("--format", "list_format", help="paddlex2 (train_list.txt, ...) or paddlex3 (train.txt, ...).")
@click.option("--force", is_flag=True, help="Replace lists that are there.")
def split(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    val: Optional[float],
    test: Optional[float],
    seed: Optional[int],
    group: Optional[str],
    list_format: Optional[str],
    force: bool,
) -> None:
    """Cut a folder with one folder a class into training, validation and test lists."""
    from pplc_cli.cli.console import results as ui
    from pplc_cli.cli.locate import find_config
    from pplc_cli.data.split import split_dataset

    flags = overrides_of(
        overrides, split__val=val, split__test=test, split__seed=seed, split__group=group, split__format=list_format
    )
    config = find_config(config_option, dataset, flags, must_exist=("data.dir",))
    with ui.counter("checking pictures") as progress:
        report = split_dataset(config.data.dir, config.split, force=force, progress=progress)
    ui.print_split(config.data.dir, report)


@cli.command()
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@common
@click.option("--output", metavar="FILE", help="The PNG to write; default: preview.png in the run's folder.")
@click.option("--images", type=click.IntRange(1, 50), default=6, show_default=True, help="Rows.")
@click.option("--seed", type=int, default=0, help="Other random draws.")
def preview(
    config_argument: Optional[str],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    output: Optional[str],
    images: int,
    seed: int,
) -> None:
    """Draw what the training operators do to pictures."""
    from pathlib import Path

    from pplc_cli.cli.locate import find_config
    from pplc_cli.data.preview import preview as draw

    config = find_config(config_argument or config_option, dataset, overrides_of(overrides), must_exist=("data.dir",))
    click.echo(f"{draw(config, output or Path(config.output) / 'preview.png', images=images, seed=abs(seed))} written")


@cli.command(name="eval")
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
    from pplc_cli.cli.console import results as ui
    from pplc_cli.cli.locate import find_trained
    from pplc_cli.training.evaluation.evaluate import evaluate as measure

    trained, config = find_trained(run, config_option, dataset, overrides_of(overrides, eval__split=part))
    with ui.counter("measuring") as progress:
        found = measure(trained, config, data=data, output=output, progress=progress)
    ui.print_evaluation(found, as_json)


for _command in (train, distill, label, export, predict, bench, models, profile, compare, weights):
    cli.add_command(_command)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names that are no UTF-8 must not stop a command
    cli(prog_name="pplc")
