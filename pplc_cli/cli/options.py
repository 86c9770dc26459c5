"""Options that several commands take: as in :mod:`pplc_cli.cli.main`, only click and the standard library load here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every command takes."""
    for option in (
        click.option("-o", "--override", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Set a value of the configuration, as in -o train.epochs=5."),
        click.option("--dataset", metavar="NAME", help="A folder, a name under datasets/, or of configs/NAME.yaml."),
        click.option("--config", "config_option", metavar="FILE", help="The YAML that drives every step."),
    ):  # fmt: skip
        command = option(command)
    return command


def run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--run", metavar="FOLDER", help="The trained run; default: the latest.")(command)


def overrides_of(texts: tuple[str, ...], **flags: Any) -> dict[str, Any]:
    """Dotted keys from -o and from flags (section__key); a flag wins."""
    from pplc_cli.config.load import parse_override

    values = dict(parse_override(text) for text in texts)
    values.update({key.replace("__", "."): value for key, value in flags.items() if value is not None})
    return values
