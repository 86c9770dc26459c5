"""The command line. A command parses its options, calls the library once, and prints the result.

The module of a command is imported when the command is used. Until a command runs, only click and the standard library
load.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Optional

import click

from pplc_cli.base.errors import ConfigError, PplcError
from pplc_cli.base.language.messages import tr, use_language
from pplc_cli.base.processes.signals import Ended, EndingSignals
from pplc_cli.base.text import visible_lines
from pplc_cli.base.version import __version__
from pplc_cli.cli.command import Group, Interrupted, is_verbose
from pplc_cli.cli.options import named_by_options

# Each command and its module in pplc_cli.cli.commands, in the order of --help.
_COMMANDS = {
    "sample": "data",
    "init": "data",
    "check": "check",
    "split": "data",
    "preview": "data",
    "train": "train",
    "distill": "train",
    "tune": "tune",
    "eval": "evaluate",
    "label": "label",
    "explain": "evaluate",
    "export": "export",
    "predict": "predict",
    "serve": "serve",
    "report": "runs",
    "runs": "runs",
    "bench": "bench",
    "models": "models",
    "profile": "models",
    "compare": "models",
    "weights": "models",
}
_FUNCTIONS = {"eval": "evaluate"}  # commands whose function has another name


class _Pplc(Group):
    """Loads commands on first use, and turns the user's errors into one message and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"pplc_cli.cli.commands.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, _FUNCTIONS.get(cmd_name, cmd_name))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with EndingSignals() as signals:
            try:
                return super().invoke(ctx)
            except Interrupted:
                raise
            except KeyboardInterrupt as error:
                raise Interrupted(error) from None
            except Exception as error:
                if signals.came is not None:  # a library made another error of it
                    raise Interrupted(Ended(signals.came)) from error
                if isinstance(error, BrokenPipeError) or not isinstance(error, (PplcError, OSError, MemoryError)):
                    raise
                if is_verbose():
                    _print_traceback(error)
                raise click.ClickException(visible_lines(_message(error, ctx))) from error


def _message(error: Exception, ctx: click.Context) -> str:
    if isinstance(error, ConfigError):
        return named_by_options(error, ctx)
    if isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return tr("out of memory; try a smaller batch size (-o train.batch_size=4)")
    return str(error)


def _print_traceback(error: BaseException) -> None:
    """Print the tracebacks of an error and of its causes, also of causes hidden by ``from None``."""
    import traceback

    cause = error.__cause__ or error.__context__
    if cause is not None:
        _print_traceback(cause)
        click.echo(tr("\nThis caused:\n"), err=True)
    click.echo("".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False)), err=True)


@click.group(cls=_Pplc, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pplc", help="Show the version and exit.")
def cli() -> None:
    """Train, export and run light image classifiers on computers without a GPU.

    \b
    pplc split --dataset pandatiger       write training, validation and test lists
    pplc train configs/pandatiger.yaml    train PP-LCNet
    pplc eval                             accuracy, confusion matrix, worst mistakes
    pplc export                           write the model for prediction, and check it
    pplc predict img.jpg                  classify an image
    """


def main() -> None:
    """Run the command line, as the console script does."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names that are not UTF-8 must not stop a command
    use_language()
    cli(prog_name="pplc")
