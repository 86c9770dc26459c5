"""Base classes of the commands: --quiet, --verbose, Ctrl-C and other signals.

Only click and the standard library load here.
"""

from __future__ import annotations

import inspect
import re
import signal
import sys
import unicodedata
from collections.abc import Iterator
from typing import IO, Any, Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.base.text import visible_lines

_ZERO_WIDTH = "\u200b"
_NOT_FIRST, _NOT_LAST = "，。；：、？！）》", "（《："  # in a line
_VERBOSITY = "pplc_cli.verbosity"  # key of click's Context.meta, which a command shares with its groups


class Interrupted(click.ClickException):
    """Ctrl-C, SIGTERM or SIGHUP: one line on standard error, exit status 128 + the signal's number."""

    def __init__(self, cause: KeyboardInterrupt, advice: str = "") -> None:
        """
        Args:
            cause: what the signal raised.
            advice: a sentence on how to continue.
        """
        number = getattr(cause, "number", signal.SIGINT)
        if number == signal.SIGINT:
            what = tr("Interrupted.")
        else:
            what = tr("Ended by {signal}.", signal=signal.Signals(number).name)
        super().__init__(tr("{what} {advice}", what=what, advice=advice) if advice else what)
        self.exit_code = 128 + number  # type: ignore[misc] # click's exceptions have one status each

    def show(self, file: Optional[IO[Any]] = None) -> None:
        """Print the line, below the ^C of a terminal."""
        click.echo("\n" * sys.stderr.isatty() + self.message, file=file or sys.stderr)


class _WithVerbosity(click.Command):
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += [
            click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_set_verbosity,
                         help="Print results and errors only: no progress, notes or suggested commands."),
            click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_set_verbosity,
                         help="Also print the libraries' log lines and, after an error, its traceback."),
        ]  # fmt: skip

    def get_help(self, ctx: click.Context) -> str:
        """The help in the user's language."""
        self.help = _spaced(tr(inspect.cleandoc(self.help or "")))
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and option.help:
                option.help = _spaced(tr(option.help))
        return _unspaced(super().get_help(ctx))

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence of the help, in the user's language."""
        sentence, stop, _ = tr(inspect.cleandoc(self.help or "")).partition("。")
        return _spaced(sentence) if stop else super().get_short_help_str(limit)


def _spaced(text: str) -> str:
    """Give wide characters a second character: click counts characters, and breaks lines at spaces."""
    spaced = []
    for char, following in zip(text, f"{text[1:]} "):
        kept = following in _NOT_FIRST or char in _NOT_LAST
        spaced.append(char + (_ZERO_WIDTH if kept else " ") * _is_wide(char))
    return "".join(spaced)


def _unspaced(text: str) -> str:
    """Remove the second characters of :func:`_spaced`."""
    text = text.replace(_ZERO_WIDTH, "")
    return re.sub(r"(.) ", lambda found: found[1] if _is_wide(found[1]) else found[0], text)


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def help_of(command: click.Command) -> Iterator[str]:
    """The texts of a command's help, in English: its own and those of its options."""
    yield inspect.cleandoc(command.help or "")
    yield from (option.help for option in command.params if isinstance(option, click.Option) and option.help)


class Command(_WithVerbosity):
    """A command with --quiet and --verbose."""


class Group(_WithVerbosity, click.Group):
    """A group with --quiet and --verbose; commands declared with its ``command`` have them too."""

    command_class = Command


def is_quiet() -> bool:
    """Whether the running command has --quiet; False outside a command. Call it from the main thread."""
    return _verbosity() == "quiet"


def is_verbose() -> bool:
    """Whether the running command has --verbose; False outside a command. Call it from the main thread."""
    return _verbosity() == "verbose"


def echo(text: str, *, err: bool = False) -> None:
    """Print text, to standard output or error. What a terminal acts on, in names and labels, is escaped."""
    click.echo(visible_lines(text), err=err)


def note(text: Optional[str]) -> None:
    """Print a note, if there is one, to standard error, except with --quiet."""
    if text and not is_quiet():
        echo(text, err=True)


def hint(text: str) -> None:
    """Print a suggested command or other help to standard output, except with --quiet."""
    if not is_quiet():
        echo(text)


def _verbosity() -> Optional[str]:
    context = click.get_current_context(silent=True)
    return context.meta.get(_VERBOSITY) if context else None


def _set_verbosity(ctx: click.Context, option: click.Parameter, given: bool) -> None:
    if not given:
        return
    name = option.name
    if ctx.meta.setdefault(_VERBOSITY, name) != name:
        raise click.UsageError(tr("--quiet and --verbose exclude each other"), ctx)
    if name == "verbose":
        _show_library_logs()


def _show_library_logs() -> None:
    """Send the libraries' log lines, from level INFO, to standard error."""
    import logging
    import os

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(levelname)s: %(message)s", stream=sys.stderr)
    os.environ.setdefault("GLOG_minloglevel", "0")  # Paddle's C++ log; load_paddle would set 2
