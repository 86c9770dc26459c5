"""Writing files and folders so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from pplc_cli.base.errors import PplcError

PathLike = Union[str, "os.PathLike[str]"]


def user_path(text: PathLike) -> Path:
    """A path as a person typed it; Windows separators are understood on every system.

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
    except RuntimeError:  # ~nobody, or no home at all
        return Path(text)


def quoted(text: str) -> str:
    """A path as it is typed in a shell, in a command that a message suggests."""
    return f'"{text}"' if " " in text else text


def write_failure(path: Path, error: OSError) -> PplcError:
    """What to tell a user whose file could not be written."""
    reason = error.strerror or str(error)
    advice = (
        "free some space and try again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        else ("check the folder and its permissions")
    )
    return PplcError(f"cannot write {path}: {reason}; {advice}. What was there before is unchanged.")


@contextlib.contextmanager
def atomic_file(path: PathLike) -> Iterator[Path]:
    """Give a temporary name to write to; on success it takes the place of ``path``, on failure it is removed.

    Raises:
        PplcError: the file cannot be written (no space, no permission, ...).
    """
    path = Path(path)
    # The suffix stays last: some writers choose the format by it.
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
    """Give a temporary folder to fill; on success it takes the place of the folder ``path`` as a whole.

    No system can exchange two folders everywhere in one step, so the old one is first renamed to
    ``.old-NAME``: :func:`recover_directory` puts it back where a crash fell between the two renames.

    Raises:
        PplcError: the folder cannot be written.
    """
    path = _linked(Path(path))
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    old = _old_name(path)
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "there is a file of this name")
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
    """Finish what a crash inside :func:`atomic_directory` left: the folder, whole, at its own name.

    Raises:
        PplcError: the folder cannot be put back.
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
    """Remove the temporary files of killed processes from a folder that only this process writes."""
    for leftover in Path(folder).glob(".tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


def _old_name(path: Path) -> Path:
    return path.with_name(f".old-{path.name}")


def _linked(path: Path) -> Path:
    """What a link points to: renaming the link itself would leave its folder behind."""
    return path.resolve() if path.is_symlink() else path


def _sync_folder(path: Path) -> None:
    if os.name != "nt":  # Windows cannot open a folder to flush it, nor can some network drives
        with contextlib.suppress(OSError):
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain(text: str) -> str:
    """Text that every file can hold: a name that is no Unicode keeps its bytes as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
