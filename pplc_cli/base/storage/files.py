"""Paths from users, and atomic writes: after a crash, a file or folder is the old or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from pplc_cli.base.errors import PplcError

PathLike = Union[str, "os.PathLike[str]"]


def user_path(text: PathLike) -> Path:
    """Convert a path from user input; Windows separators work on every system.

    Args:
        text: a path, absolute, relative to the current folder, or starting with ``~``.
    """
    path = _expanded(str(text))
    if "\\" in str(text) and not os.path.exists(path):  # noqa: PTH110 - pathlib's raises for long names
        return _expanded(str(text).replace("\\", "/"))
    return path


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody, or a user without a home
        return Path(text)


def quoted(text: str, *, windows: bool = os.name == "nt") -> str:
    """Quote a word of a suggested command for the user's shell, if it needs that."""
    plain = "@+=:,./_-" + "\\" * windows  # shells read letters and these as they are
    if text and all(letter.isalnum() or letter in plain for letter in text):
        return text
    # No file name of Windows has double quotes, and its shells keep nearly all else between them.
    return f'"{text}"' if windows else shlex.quote(text)


def write_failure(path: Path, error: OSError) -> PplcError:
    """The error for a file that could not be written."""
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free some space and try again" if full else "check the folder and its permissions"
    return PplcError(f"cannot write {path}: {reason}; {advice}. The previous content is unchanged.")


@contextlib.contextmanager
def atomic_file(path: PathLike) -> Iterator[Path]:
    """Yield the path of a temporary file. Success renames the file to ``path``, failure removes it.

    Raises:
        PplcError: the file cannot be written (no space, no permission, ...).
    """
    path = Path(path)
    # Keep the suffix at the end: some writers choose the format by it.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: PathLike, text: str) -> None:
    """Write UTF-8 text atomically, with ``\\n`` line ends on every system."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: PathLike, value: Any) -> None:
    """Write indented UTF-8 JSON atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextlib.contextmanager
def atomic_directory(path: PathLike) -> Iterator[Path]:
    """Yield a temporary folder. On success it replaces the folder ``path`` as a whole.

    Swapping two folders in one step is not portable, so the old one is first renamed to ``.old-NAME``.
    :func:`recover_directory` renames it back after a crash between the two renames.

    Raises:
        PplcError: the folder cannot be written.
    """
    path = _linked(Path(path))
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    old = _old_name(path)
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file has this name")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        _sync_folder(temporary)
        recover_directory(path)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        with contextlib.suppress(PplcError):
            recover_directory(path)
        raise write_failure(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover_directory(path: PathLike) -> Path:
    """Restore the folder ``path`` after a crash inside :func:`atomic_directory`.

    Raises:
        PplcError: the folder cannot be renamed.
    """
    path = _linked(Path(path))
    old = _old_name(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            try:
                old.rename(path)
            except OSError as error:
                raise write_failure(path, error) from error
    return path


def remove_leftovers(folder: PathLike) -> None:
    """Remove temporary files that killed processes left in a folder; only this process may write there."""
    for leftover in Path(folder).glob(".tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


def _old_name(path: Path) -> Path:
    return path.with_name(f".old-{path.name}")


def _linked(path: Path) -> Path:
    """Follow a link: renaming the link itself would leave its folder behind."""
    return path.resolve() if path.is_symlink() else path


def _sync_folder(path: Path) -> None:
    if os.name != "nt":  # Windows and some network drives cannot open a folder
        with contextlib.suppress(OSError):
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
