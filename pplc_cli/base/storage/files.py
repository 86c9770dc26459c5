"""Paths from users, and atomic writes: after a crash, a file or folder is the old or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from pplc_cli.base.errors import PplcError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.identity import is_running, process_identity

PathLike = Union[str, "os.PathLike[str]"]
TEMPORARY = ".tmp-pplc-"  # begins the name of every temporary file and folder
DAY = 24 * 3600
_NUMBERS = itertools.count()  # distinguishes the temporary files of a process, also between its threads


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
    """The error for a file that could not be written; it names the file that the system refused."""
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = tr("free some space and try again") if full else tr("check the folder and its permissions")
    refused = str(error.filename or path)
    if refused == str(path) or TEMPORARY in refused:
        return PplcError(
            tr(
                "cannot write {path}: {reason}; {advice}. The previous content is unchanged.",
                path=path,
                reason=reason,
                advice=advice,
            )
        )
    return PplcError(
        tr(
            "cannot write {path}: {refused}: {reason}; {advice}. The previous content is unchanged.",
            path=path,
            refused=refused,
            reason=reason,
            advice=advice,
        )
    )


def read_failure(path: Path, error: OSError) -> str:
    """Why a file that is there could not be read: no permission, no access to the disk."""
    return tr("{path} cannot be read: {reason}; check its permissions", path=path, reason=error.strerror or error)


@contextlib.contextmanager
def atomic_file(path: PathLike) -> Iterator[Path]:
    """Yield the path of a temporary file. Success renames the file to ``path``, failure removes it.

    The file gets the permissions that the umask grants, whichever library writes it.

    Raises:
        PplcError: the file cannot be written (no space, no permission, ...).
    """
    path = Path(path)
    # Keep the suffix: some writers choose the format by it.
    temporary = _temporary(path.parent, path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent.resolve())
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        _set_mode(temporary, mode)
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if TEMPORARY in str(path.parent):
            raise  # atomic_directory names the folder that the user knows
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

    Swapping two folders in one step is not portable, so the old one is first renamed to ``.old-pplc-NAME``.
    :func:`recover_directory` renames it back after a crash between the two renames. All files get the permissions that
    the umask grants, whichever library writes them.

    Raises:
        PplcError: the folder cannot be written.
    """
    path = _linked(Path(path))
    temporary = _temporary(path.parent)
    try:
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, tr("a file has this name"))
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent.resolve())
        temporary.mkdir()
        yield temporary
        mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
        for file in temporary.rglob("*"):
            if file.is_file():
                _set_mode(file, mode)
                _sync(file)
        _sync_folder(temporary)
        _replace_directory(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(PplcError):
            recover_directory(path)
        raise write_failure(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_errors_named(folder: Path, size: int) -> Iterator[None]:
    """After an error of a library that writes files itself, raise the system's own error if a disk is the cause.

    Paddle notices a full disk only when it reads the file again, and others report it as errors of their own.

    Args:
        folder: where the library writes.
        size: bytes that it may write.
    """
    try:
        yield
    except OSError:
        raise
    except Exception:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
        raise


def _replace_directory(temporary: Path, path: Path) -> None:
    old = _old_name(path)
    while True:
        recover_directory(path)
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
            break
        except OSError as error:  # a reader has just recovered the old folder
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    shutil.rmtree(old, ignore_errors=True)


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
    """Remove the temporary files and folders of :func:`atomic_file` and :func:`atomic_directory` of dead processes."""
    for leftover in Path(folder).glob(f"{TEMPORARY}*"):
        if not _is_abandoned(leftover):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


@functools.cache
def _remove_leftovers_once(folder: Path) -> None:
    """Listing a large folder before each of many writes would be slow."""
    with contextlib.suppress(OSError):
        remove_leftovers(folder)


def _temporary(folder: Path, suffix: str = "") -> Path:
    """A new temporary name, which says who writes it; as short as it can be, since names are limited to 255 bytes."""
    owner = "-".join(map(str, process_identity()))
    return folder / f"{TEMPORARY}{owner}-{next(_NUMBERS)}{suffix if len(suffix.encode()) <= 32 else ''}"


def _is_abandoned(leftover: Path) -> bool:
    """Whether the writer is dead; where the system does not tell, that is assumed after a day."""
    machine, pid, start, *_ = [*leftover.name[len(TEMPORARY) :].split("-"), "", "", ""]
    if not (pid.isdecimal() and start.isdecimal()):
        return False  # not one of our names
    running = is_running(machine, int(pid), int(start))
    if running is None:
        with contextlib.suppress(OSError):
            return time.time() - leftover.stat().st_mtime > DAY
    return running is False


def _old_name(path: Path) -> Path:
    return path.with_name(f".old-pplc-{path.name}")


def _set_mode(path: Path, mode: int) -> None:
    """Undo the private mode of a library's own temporary file; some file systems have no modes to change."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


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
