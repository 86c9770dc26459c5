"""``pplc init``, ``pplc split`` and ``pplc preview``."""

from __future__ import annotations

from typing import Optional

import click

from pplc_cli.cli.options import common, overrides_of


@click.command()
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


@click.command()
@common
@click.option("--val", type=float, help="Share of each class for validation (0.2).")
@click.option("--test", type=float, help="Share of each class kept for testing (0.1).")
@click.option("--seed", type=int, help="Another seed gives another split (0).")
@click.option("--group", metavar="REGEX", help="Images whose paths match with the same (group) stay together.")
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
    from pplc_cli.cli.console import results
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_config
    from pplc_cli.data.split import split_dataset

    flags = overrides_of(
        overrides, split__val=val, split__test=test, split__seed=seed, split__group=group, split__format=list_format
    )
    config = find_config(config_option, dataset, flags, must_exist=("data.dir",))
    with counter("checking images") as progress:
        report = split_dataset(config.data.dir, config.split, force=force, progress=progress)
    results.print_split(config.data.dir, report)


@click.command()
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
    """Draw what the training operators do to images."""
    from pathlib import Path

    from pplc_cli.cli.locate import find_config
    from pplc_cli.data.preview import preview as draw_preview
    from pplc_cli.data.transforms.pipeline import Pipeline

    config = find_config(config_argument or config_option, dataset, overrides_of(overrides), must_exist=("data.dir",))
    pipeline = Pipeline(config.train.transforms, training=True)
    path = output or Path(config.output) / "preview.png"
    click.echo(f"{draw_preview(config.data, pipeline, path, images=images, seed=abs(seed))} written")
