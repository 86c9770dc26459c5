"""``pplc.json`` of an exported folder: facts that ``inference.yml`` has no keys for, and records of all other files."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.bounded import read_bounded
from pplc_cli.base.storage.cache_dir import sha256_of

SIDECAR = "pplc.json"
LARGEST_SIDECAR = 1 << 20  # bytes; a few kilobytes are usual
LARGEST = 1 << 31  # bytes of any file: ONNX, a protobuf message, cannot be larger


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The facts that ``pplc export`` recorded about a folder; empty for PaddleX's folders.

    Raises:
        PredictError: the file is damaged.
    """
    file = folder / SIDECAR
    try:
        content = json.loads(read_bounded(file, LARGEST_SIDECAR))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PredictError(tr("{file}: cannot be read: {reason}", file=file, reason=error.strerror)) from None
    except (ValueError, RecursionError) as error:
        raise PredictError(
            tr("{file}: is damaged: {kind}; run pplc export again", file=file, kind=type(error).__name__)
        ) from None
    if not isinstance(content, dict):
        raise PredictError(tr("{file}: is damaged: expected an object; run pplc export again", file=file))
    return content


def record_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of all files of a folder, by name."""
    files = [file for file in sorted(folder.iterdir()) if file.name != SIDECAR]
    return {file.name: {"size": file.stat().st_size, "sha256": sha256_of(file)} for file in files}


def check_files(folder: Path) -> None:
    """Check that the files of a network are regular files, and are those that ``pplc export`` recorded, if it did.

    Files that were deleted since are no damage: engines that need them name them.

    Raises:
        PredictError: a file is damaged, or is no regular file.
    """
    try:
        _check_files(folder)
    except OSError as error:
        raise PredictError(
            tr("{file}: cannot be read: {reason}", file=error.filename or folder, reason=error.strerror)
        ) from None


def _check_files(folder: Path) -> None:
    sizes = {}
    for file in sorted(folder.glob("inference*")):
        facts = file.stat() if file.exists() else None
        if facts is None or not stat.S_ISREG(facts.st_mode):
            raise PredictError(
                tr("{file}: expected a regular file, got a link, a folder, a pipe or a device", file=file)
            )
        if facts.st_size > LARGEST:
            raise PredictError(
                tr(
                    "{file}: is larger than {limit} GiB, the limit for a file of a network",
                    file=file,
                    limit=LARGEST >> 30,
                )
            )
        sizes[file.name] = facts.st_size
    records = read_sidecar(folder).get("files", {})
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise PredictError(
            tr("{folder}: is damaged: expected records of files; run pplc export again", folder=folder / SIDECAR)
        )
    for name in sizes.keys() & records.keys():
        record, file = records[name], folder / name
        if record.get("size") != sizes[name] or record.get("sha256") != sha256_of(file):
            raise PredictError(
                tr(
                    "{file}: is damaged: it differs from the file that pplc export wrote; run pplc export "
                    "again, or, if you replaced it on purpose, delete {sidecar}",
                    file=file,
                    sidecar=SIDECAR,
                )
            )
