"""Options that several commands share. Only click and the standard library load here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pplc_cli.base.errors import ConfigError, PplcError, is_about
from pplc_cli.base.language.messages import tr

SAMPLES = ("pandatiger",)  # data sets that pplc sample draws
_NAMES = "pplc_cli.options"  # key of click's Context.meta, which a command shares with its groups


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


def require_folds(soup: bool) -> None:
    """Refuse --soup without --folds.

    Raises:
        PplcError: it was given.
    """
    if soup:
        raise PplcError(tr("--soup averages the networks of pplc train --folds; add --folds"))


class RenamedOption(click.Option):
    """An option with one name in help, completion and errors; further names are older ones, which still work."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.opts, self.older = self.opts[:1], self.opts[1:]

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Accept all names."""
        shown, self.opts = self.opts, [*self.opts, *self.older]
        super().add_to_parser(parser, ctx)
        self.opts = shown


def overrides_of(texts: tuple[str, ...], **flags: Any) -> dict[str, Any]:
    """Combine -o and other options as dotted keys; options, named section__key, win over -o.

    The context remembers which option gave each key, for :func:`named_by_options`.
    """
    from pplc_cli.config.load import parse_override

    context = click.get_current_context()
    names: dict[str, str] = context.meta.setdefault(_NAMES, {})
    values: dict[str, Any] = {}
    for text in texts:
        key, values[key] = parse_override(text)
        names[key] = f"-o {text}"
    for flag, value in flags.items():
        if value is not None:
            key = flag.replace("__", ".")
            values[key], names[key] = value, _option_of(context.command, key)
    return values


def named_by_options(error: ConfigError, context: click.Context) -> str:
    """The text of an error in which the faults of options start with the option instead of the key."""
    names: dict[str, str] = context.meta.get(_NAMES, {})
    faults = []
    for fault in error.faults:
        key = max((key for key in names if is_about(fault, key)), key=len, default=None)
        if key is None:
            faults.append(fault)
        elif fault[len(key)] in ".[":
            faults.append(tr("{option}: {fault}", option=names[key], fault=fault))
        else:
            faults.append(names[key] + fault[len(key) :])
    alone = len(faults) == 1 and faults != error.faults
    return faults[0] if alone else str(ConfigError(error.source, faults))


def _option_of(command: click.Command, key: str) -> str:
    """The option that sets a key: --top-k for predict.top_k, --network (before: --model) for model.name."""
    known = {}
    for parameter in command.params:
        older = parameter.older if isinstance(parameter, RenamedOption) else []
        known.update(dict.fromkeys([*parameter.opts, *older], parameter.opts[0]))
    named = [f"--{part.replace('_', '-')}" for part in reversed(key.split("."))]
    return next((known[name] for name in named if name in known), key)
