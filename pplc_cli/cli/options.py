"""Options that several commands share. Only click and the standard library load here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose a configuration."""
    for option in (
        click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Set a value of the configuration, as in -o train.epochs=5; may be repeated."),
        click.option("--dataset", metavar="NAME",
                     help="The data set: configs/NAME.yaml if it exists, else the folder NAME, else datasets/NAME. "
                     "Together with --config: the folder with the images."),
        click.option("--config", "config_option", metavar="FILE", help="The configuration, a YAML file."),
    ):  # fmt: skip
        command = option(command)
    return command


def run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --run."""
    return click.option(
        "--run", metavar="FOLDER", help="The training run.  [default: that of --config or --dataset, else the latest]"
    )(command)


class RenamedOption(click.Option):
    """An option with one name in help, completion and errors; further names are older ones, which still work."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.opts, self._older = self.opts[:1], self.opts[1:]

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Accept all names."""
        shown, self.opts = self.opts, [*self.opts, *self._older]
        super().add_to_parser(parser, ctx)
        self.opts = shown


def overrides_of(texts: tuple[str, ...], **flags: Any) -> dict[str, Any]:
    """Combine -o and other options as dotted keys; options, named section__key, win over -o."""
    from pplc_cli.config.load import parse_override

    values = dict(parse_override(text) for text in texts)
    values.update({key.replace("__", "."): value for key, value in flags.items() if value is not None})
    return values
