"""Keep corrected images: each once, by the hash of its content, with its label in a list to train on."""

from __future__ import annotations

import csv
import hashlib
import io
import threading
from pathlib import Path

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, atomic_file, user_path, write_text
from pplc_cli.base.text import csv_line, unguarded
from pplc_cli.data.decode import decode_image

LIST = "list.csv"
LONGEST_LABEL = 100  # characters
# The first bytes of formats, so that a file has the suffix of what it is, whatever the client named it.
_SIGNATURES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"RIFF", ".webp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)


class Collection:
    """A folder with corrected images and ``list.csv``, which ``data.extra_list`` takes.

    Attributes:
        folder: created with the first image.
    """

    def __init__(self, folder: PathLike) -> None:
        """
        Raises:
            DataError: the list that is there cannot be read.
        """
        self.folder = user_path(folder)
        self._lock = threading.Lock()
        self._labels = self._read()

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, data: bytes, label: str) -> Path:
        """Keep an image with its label; another label for the same image replaces the first one.

        Args:
            data: the encoded image, as it came.
            label: a class of the model, or a new one.

        Returns:
            The image's file.

        Raises:
            ImageError: it cannot be decoded.
            DataError: the label is empty, too long, or has characters that a list cannot hold.
        """
        label = label.strip()
        if not label or len(label) > LONGEST_LABEL or not label.isprintable():
            raise DataError(
                tr(
                    "expected a label of 1 to {most} printable characters, got {label!r}",
                    most=LONGEST_LABEL,
                    label=label[:LONGEST_LABEL],
                )
            )
        decode_image(data)
        name = f"images/{hashlib.sha256(data).hexdigest()[:32]}{_suffix(data)}"
        file = self.folder / name
        with self._lock:
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(file) as temporary:
                    temporary.write_bytes(data)
            if self._labels.get(name) != label:
                self._write({**self._labels, name: label})
                self._labels[name] = label
        return file

    def _write(self, labels: dict[str, str]) -> None:
        write_text(self.folder / LIST, "path,label\n" + "".join(map(csv_line, labels.items())))

    def _read(self) -> dict[str, str]:
        file = self.folder / LIST
        if self.folder.exists() and not self.folder.is_dir():
            raise DataError(tr("{folder} is a file; expected a folder for --collect", folder=self.folder))
        try:
            text = file.read_text("utf-8-sig")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DataError(tr("{file}: cannot be read: {reason}", file=file, reason=error)) from None
        rows = list(csv.reader(io.StringIO(text)))
        if not rows or rows[0] != ["path", "label"] or any(len(row) != 2 for row in rows[1:]):
            raise DataError(tr("{file}: is no list of pplc serve; expected another folder for --collect", file=file))
        return {unguarded(name): unguarded(label) for name, label in rows[1:]}


def _suffix(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return ".avif" if data[8:12] in (b"avif", b"avis") else ".heic"
    return next((suffix for start, suffix in _SIGNATURES if data.startswith(start)), ".img")
