"""Tell Pythons that are too old what they need: pip would name a package instead. All else is in pyproject.toml."""

import sys

from setuptools import setup

if sys.version_info < (3, 9):  # noqa: UP036 - for such Pythons, pip gets no further than here
    sys.exit(f"pplc needs Python 3.9 to 3.13; this is Python {sys.version_info[0]}.{sys.version_info[1]}")
setup()
