"""Messages in the user's language: English in the code, translations in gettext catalogues.

The library speaks English until :func:`use_language` is called; the command line calls it at its start. Two catalogues
lie in ``locale/LANGUAGE/LC_MESSAGES``: ``pplc_cli`` for this package, ``click`` for the messages of click.
``scripts/update_messages.py`` collects the messages of the code and compiles the catalogues.
"""

from __future__ import annotations

import gettext
import locale
import os
import sys
from pathlib import Path
from typing import Any, Optional

LANGUAGES = ("en", "zh")
CATALOGUES = Path(__file__).parent / "locale"

_translations = gettext.NullTranslations()
_language = LANGUAGES[0]


def tr(message: str, **values: Any) -> str:
    """Translate a message, then replace its ``{placeholders}`` by the values.

    Args:
        message: the English text. It must be a literal, so that it can be collected, or one that is :func:`marked`.
        values: the values of the placeholders, as for :meth:`str.format`; without values, braces stay as they are.
    """
    text = _translations.gettext(message)
    return text.format(**values) if values else text


def trn(singular: str, plural: str, count: int, **values: Any) -> str:
    """Translate a message whose form depends on a number, the placeholder ``{count}``."""
    return _translations.ngettext(singular, plural, count).format(count=count, **values)


def marked(message: str) -> str:
    """Mark a literal so that it is collected; :func:`tr` translates it where it is used."""
    return message


def user_language() -> str:
    """The user's language: PPLC_LANG, else the locale's; English if there is no translation."""
    wanted = os.environ.get("PPLC_LANG") or _locale_name()
    found = wanted.lower()[:2]
    return found if found in LANGUAGES else "en"


def use_language(language: Optional[str] = None) -> None:
    """Choose the language of all messages in this process: en or zh; None: :func:`user_language`."""
    global _translations, _language
    chosen = _language = language or user_language()
    _translations = gettext.translation("pplc_cli", CATALOGUES, [chosen], fallback=True)
    # click translates through gettext's global functions, which read the language from the environment.
    os.environ["LANGUAGE"] = chosen
    gettext.bindtextdomain("click", str(CATALOGUES))
    gettext.textdomain("click")


def current_language() -> str:
    """The language of messages in this process, for a process that it starts: en or zh."""
    return _language


def _locale_name() -> str:
    """The locale of messages, as in zh_CN.UTF-8; empty if none is set."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if name := os.environ.get(variable):
            return name
    if sys.platform == "win32":
        import ctypes

        return locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")
    return ""
