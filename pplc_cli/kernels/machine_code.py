"""Compile kernels with Numba, and keep their machine code in the cache folder.

Numba's own cache on disk trusts its files: one that is cut short ends the process, and one that someone else wrote runs
their code. Here each file has a checksum, and lies in a folder that only the user may write.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import llvmlite
import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps

from pplc_cli.base.errors import PplcError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.forks import hold_at_fork
from pplc_cli.base.storage.cache_dir import cache_folder
from pplc_cli.base.storage.files import atomic_file

hold_at_fork(global_compiler_lock)
_ROOM = 4 << 20  # bytes; the machine code takes less
_SIZE = hashlib.sha256().digest_size


def compiled(file: str) -> Callable[[Callable[..., None]], Any]:
    """Compile the decorated function at its first use, and keep the machine code.

    Args:
        file: the function's ``__file__``. All sources in its folder and in ``simd/`` are part of the function.
    """

    def decorate(work: Callable[..., None]) -> Any:
        folder = Path(file).parent
        dispatcher: Any = numba.njit(nogil=True)(work)
        dispatcher._cache = _CodeCache(f"{folder.name}{work.__name__}", _digest(folder))
        return dispatcher

    return decorate


def is_compiled(work: Any, *arguments: Any) -> bool:
    """Whether the machine code for this CPU and these types of arguments is in memory or in the cache folder."""
    types = tuple(numba.typeof(value) for value in arguments)
    return bool(work.signatures) or work._cache.read(types, work.targetctx.codegen()) is not None


def cache_fault() -> Optional[str]:
    """Why machine code cannot be kept, or None."""
    try:
        with tempfile.TemporaryFile(dir=_own_folder()) as file:
            file.write(bytes(_ROOM))
    except (OSError, PplcError) as error:
        return one_line(error)
    return None


def _digest(folder: Path) -> str:
    """SHA-256 of the sources in a folder and in ``simd/``, with their subfolders."""
    sources = [path for part in (Path(__file__).with_name("simd"), folder) for path in sorted(part.rglob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _own_folder() -> Path:
    """The folder of machine code, which belongs to the user, and which nobody else may write.

    Raises:
        OSError: there is no such folder, and it cannot be made, or it belongs to someone else.
        PplcError: the user has no home folder.
    """
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or cache_folder()) / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid"):
        status = folder.stat()
        if status.st_uid != os.geteuid():
            raise PermissionError(tr("{folder} belongs to another user", folder=folder))
        if stat.S_IMODE(status.st_mode) & 0o077:
            folder.chmod(0o700)
    return folder


class _CodeCache(NullCache):
    """Keeps the machine code of one function: a file for each version of everything that it depends on."""

    def __init__(self, name: str, sources: str) -> None:
        """``name``: of the files; ``sources``: digest of the function's sources."""
        self._name, self._sources = name, sources

    def load_overload(self, types: Any, target: Any) -> Any:
        """The function compiled for these types, or None."""
        target.refresh()
        code = self.read(types, target.codegen())
        return None if code is None else CompileResult._rebuild(target, *pickle.loads(code))

    def save_overload(self, types: Any, result: Any) -> None:
        """Keep a compiled function, if that is possible."""
        code = dumps(result._reduce())
        with contextlib.suppress(OSError, PplcError), atomic_file(self._path(types, result.codegen)) as temporary:
            temporary.write_bytes(hashlib.sha256(code).digest() + code)

    def read(self, types: Any, codegen: Any) -> Optional[bytes]:
        """The machine code in the file; None if there is none, or if it is damaged or of another user."""
        try:
            with self._path(types, codegen).open("rb") as file:
                if hasattr(os, "geteuid") and os.fstat(file.fileno()).st_uid != os.geteuid():
                    return None
                content = file.read()
        except (OSError, PplcError):
            return None
        code = content[_SIZE:]
        return code if content[:_SIZE] == hashlib.sha256(code).digest() else None

    def _path(self, types: Any, codegen: Any) -> Path:
        versions = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, codegen.magic_tuple())
        settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_")}
        for name in ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"):  # no influence on the code
            settings.pop(name, None)
        key = hashlib.sha256(repr((str(types), self._sources, versions, settings)).encode()).hexdigest()
        return _own_folder() / f"{self._name}-{key[:32]}.code"
