"""Load Matplotlib as it is installed, whatever the environment sets for another Python, a notebook or a display."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from typing import Any


@functools.cache
def load_matplotlib() -> Any:
    """Import Matplotlib and its fonts, also if MPLBACKEND names a backend that only another Python has.

    Raises:
        Exception: whatever Matplotlib raises on a damaged installation or settings file.
    """
    # Notes, for example on a settings folder that cannot be written, do not concern the user of pplc.
    logger = logging.getLogger("matplotlib")
    level, backend = logger.level, os.environ.pop("MPLBACKEND", None)
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib
        import matplotlib.font_manager
    finally:
        logger.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:  # for the program that pplc is a part of, which may draw charts of its own
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib
