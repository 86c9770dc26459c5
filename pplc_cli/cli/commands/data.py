"""``pplc sample``, ``pplc init``, ``pplc split`` and ``pplc preview``."""

from __future__ import annotations

from typing import Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, echo, hint
from pplc_cli.cli.options import SAMPLES, config_options, overrides_of


@click.command(cls=Command)
@click.argument("name", type=click.Choice(SAMPLES))
@click.option("--output", metavar="FOLDER", help="The folder to write.  [default: datasets/NAME]")
@click.option(
    "--images", type=click.IntRange(1), default=150, show_default=True, help="Number of images of each class."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Random seed; the same seed draws the same images.",
)
@click.option("--force", is_flag=True, help="Write into a folder that is not empty.")
def sample(name: str, output: Optional[str], images: int, seed: int, force: bool) -> None:
    """Draw a sample data set.

    pandatiger: pandas and tigers, to try pplc without photographs. If there is no configs/NAME.yaml, the command also
    writes one.
    """
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import CONFIGS, DATASETS
    from pplc_cli.config.starter import write_config
    from pplc_cli.data.pandatiger.draw import draw_dataset

    with counter(tr("drawing images")) as progress:
        folder = draw_dataset(output or DATASETS / name, images=images, seed=seed, force=force, progress=progress)
    click.echo(tr("{folder} written", folder=folder))
    config = CONFIGS / f"{name}.yaml"
    if not config.exists():
        click.echo(tr("{file} written", file=write_config(folder, config, network="PPLCNet_x1_0")))
    hint(tr("Next: pplc split --dataset {name}", name=name))


@click.command(cls=Command)
@click.argument("folder")
@click.option(
    "--output", metavar="FILE", help="The YAML file to write.  [default: configs/NAME.yaml, NAME being FOLDER's name]"
)
@click.option(
    "--network",
    metavar="NAME",
    help="The network, as in pplc models.  [default: one whose ImageNet weights are on this machine]",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(folder: str, output: Optional[str], network: Optional[str], force: bool) -> None:
    """Write a commented configuration for a folder of images.

    FOLDER has one subfolder per class. Epochs, batch size and learning rate suit the number of images.
    """
    from pathlib import Path

    from pplc_cli.base.storage.files import quoted, user_path
    from pplc_cli.config.starter import write_config

    name = user_path(folder).resolve().name
    file = write_config(folder, output or Path("configs") / f"{name}.yaml", network=network, force=force)
    echo(tr("{file} written", file=file))
    hint(tr("Next: pplc split --config {file}", file=quoted(str(file))))


@click.command(cls=Command)
@config_options
@click.option("--val", type=float, help="Share of each class for the validation list.  [default: 0.2]")
@click.option("--test", type=float, help="Share of each class for the test list.  [default: 0.1]")
@click.option("--seed", type=int, help="Random seed; the same seed repeats the split.  [default: 0]")
@click.option(
    "--group",
    metavar="REGEX",
    help="Regular expression; images whose paths give the same text for its part in (parentheses) go to the same list.",
)
@click.option(
    "--lists",
    metavar="FOLDER",
    help="Where to write the lists, for example if the data set is read-only.  [default: the data set]",
)
@click.option(
    "--table", metavar="FILE", help="A CSV or TSV table of the images and their classes, in place of class folders."
)
@click.option(
    "--format",
    "list_format",
    metavar="NAME",
    help="File names: paddlex2 writes train_list.txt and so on, paddlex3 writes train.txt and so on.  "
    "[default: paddlex2]",
)
@click.option(
    "--exclude", metavar="FILE", help="Leave out the images on the lines remove,... of a file of pplc check --fix."
)
@click.option(
    "--relabel", metavar="FILE", help="Give images the classes on the lines relabel,... of a file of pplc check --fix."
)
@click.option("--force", is_flag=True, help="Replace existing lists.")
def split(
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    val: Optional[float],
    test: Optional[float],
    seed: Optional[int],
    group: Optional[str],
    lists: Optional[str],
    table: Optional[str],
    list_format: Optional[str],
    exclude: Optional[str],
    relabel: Optional[str],
    force: bool,
) -> None:
    """Divide images into training, validation and test lists.

    The data set has one folder per class, or folders train, val and test that have them. A part that is missing is cut
    from train. Unreadable files are left out and reported. Copies of an image go to the same list.
    """
    from pplc_cli.base.storage.files import quoted
    from pplc_cli.cli.console import results
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.locate import find_config
    from pplc_cli.data.lists.fixes import read_fixes
    from pplc_cli.data.lists.tables import Columns
    from pplc_cli.data.split import split_dataset

    flags = overrides_of(
        overrides,
        data__lists=lists,
        split__val=val,
        split__test=test,
        split__seed=seed,
        split__group=group,
        split__table=table,
        split__format=list_format,
    )
    config = find_config(config_option, dataset, flags, must_exist=("data.dir",))
    data = config.data
    columns = Columns(data.path_column, data.label_column)
    fixes = read_fixes(exclude, relabel)
    with counter(tr("checking images")) as progress:
        report = split_dataset(
            data.dir, config.split, lists=data.lists, columns=columns, fixes=fixes, force=force, progress=progress
        )
    results.print_split(data.lists or data.dir, report)
    if lists is not None:
        hint(
            tr(
                "Name them in the configuration, as data.lists, or train with: -o {setting}",
                setting=quoted(f"data.lists={lists}"),
            )
        )


@click.command(cls=Command)
@click.argument("config_argument", metavar="[CONFIG]", required=False)
@config_options
@click.option("--output", metavar="FILE", help="The PNG file to write.  [default: preview.png in the run's folder]")
@click.option(
    "--images", type=click.IntRange(1, 50), default=6, show_default=True, help="Number of images, one row each."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Random seed; another seed shows other augmentations."
)
def preview(
    config_argument: Optional[str],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    output: Optional[str],
    images: int,
    seed: int,
) -> None:
    """Draw some training images after augmentation.

    CONFIG is the YAML file, as with --config.
    """
    from pathlib import Path

    from pplc_cli.cli.locate import find_config
    from pplc_cli.data.preview import preview as draw_preview
    from pplc_cli.data.transforms.pipeline import Pipeline

    config = find_config(config_argument or config_option, dataset, overrides_of(overrides), must_exist=("data.dir",))
    pipeline = Pipeline(config.train.transforms, training=True)
    path = output or Path(config.output) / "preview.png"
    file = draw_preview(config.data, pipeline, path, images=images, seed=abs(seed))
    echo(tr("{file} written", file=file))
