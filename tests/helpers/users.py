"""Run a process as a user who may not read and write everything."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Optional

import pytest

_CAPBSET_DROP = 24
_OVERRIDE = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root pass by permissions


def ordinary_user(umask: Optional[int] = None) -> Callable[[], None]:
    """A ``preexec_fn`` after which permissions count even for root; skips the test where that is impossible."""
    if os.name == "nt":
        pytest.skip("Windows has no such permissions")
    root = os.getuid() == 0
    if root and not os.path.exists("/proc/self/status"):  # noqa: PTH110
        pytest.skip("only Linux can take root's rights away")

    def prepare() -> None:
        libc = ctypes.CDLL(None)
        for right in _OVERRIDE if root else ():
            if libc.prctl(_CAPBSET_DROP, right, 0, 0, 0):
                os._exit(99)
        if umask is not None:
            os.umask(umask)

    return prepare
