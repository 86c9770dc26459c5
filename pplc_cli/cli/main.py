"""The command line. A command parses its options, calls the library once, and prints the result.

Commands load on first use, and until one runs only click and the standard library are loaded.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Optional

import click

from pplc_cli.base.version import __version__

# Each command and the module of pplc_cli.cli.commands that defines it, in the order of --help.
_COMMANDS = {
    "init": "data",
    "split": "data",
    "preview": "data",
    "train": "train",
    "distill": "train",
    "eval": "evaluate",
    "label": "label",
    "export": "export",
    "predict": "predict",
    "bench": "bench",
    "models": "networks",
    "profile": "networks",
    "compare": "networks",
    "weights": "weights",
}
_FUNCTIONS = {"eval": "evaluate"}  # where a command's function has another name


class _Group(click.Group):
    """Loads a command when it is used, and turns every error that a user can cause into one message and status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"pplc_cli.cli.commands.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, _FUNCTIONS.get(cmd_name, cmd_name))
        return command

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


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names that are no UTF-8 must not stop a command
    cli(prog_name="pplc")
