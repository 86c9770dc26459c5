"""Predictions as JSON lines and CSV, in files that grow during a run.

Scores are rounded to 6 decimals. Embeddings are written with 9 significant digits, which identify every float32.
"""

from __future__ import annotations

import abc
import codecs
import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Optional

from pplc_cli.base.text import csv_line, plain, unguarded
from pplc_cli.predict.outputs.base import Output, OutputSchema, WrittenRow
from pplc_cli.predict.prediction import Prediction


def json_line(prediction: Prediction) -> str:
    """A prediction as JSON, without a line end."""
    if prediction.embedding is None:
        return json.dumps(prediction.to_dict(), ensure_ascii=False)
    # json would write 17 digits per number, of which 9 are significant, and take four times as long.
    numbers = ", ".join(["%.9g"] * len(prediction.embedding)) % tuple(prediction.embedding.tolist())
    return f'{{"path": {json.dumps(prediction.path, ensure_ascii=False)}, "embedding": [{numbers}]}}'


class LinesOutput(Output):
    """Text records, appended to the file itself."""

    _file: BinaryIO

    def __init__(self, path: Path, schema: OutputSchema) -> None:
        super().__init__(path, schema)
        self._end: Optional[int] = None  # where the last complete record ends; None once the rest is cut off

    def is_empty(self) -> bool:
        with self.path.open("rb") as file:
            return self.head.startswith(file.read(len(self.head) + 1))

    def open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._acquire(self.path.with_name(f".{self.path.name}.lock"))
        self._file = self.path.open("a+b", buffering=1 << 14)

    def clear(self) -> None:
        self._end = 0

    def written(self) -> Iterator[WrittenRow]:
        self._end = 0
        self._file.seek(0)
        for record in self._records():
            row = self.parse(record)
            if row is None:
                return
            if self._end or not self.head:
                yield row
            self._end += len(record)

    def write(self, prediction: Prediction) -> None:
        self._cut()
        self._file.write(self.encode(prediction).encode("utf-8", "backslashreplace"))

    def sync(self) -> None:
        self._cut()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a failed write has been reported
            self._file.close()
        super().close()

    def _cut(self) -> None:
        if self._end is not None:
            self._file.truncate(self._end)
            self._file.seek(0, os.SEEK_END)
            if not self._end:
                self._file.write(self.head)
            self._end = None

    @property
    def head(self) -> bytes:
        """The bytes at the start of the file."""
        return b""

    @abc.abstractmethod
    def encode(self, prediction: Prediction) -> str:
        """A record with its line end."""

    @abc.abstractmethod
    def parse(self, record: bytes) -> Optional[WrittenRow]:
        """Parse a record; None if it is incomplete or not from pplc."""

    def _records(self) -> Iterator[bytes]:
        """Split the file into candidate records."""
        for line in self._file:  # noqa: UP028 - `yield from` would close the file along with this generator
            yield line


class JsonLines(LinesOutput):
    """One JSON object per line."""

    def encode(self, prediction: Prediction) -> str:
        return json_line(prediction) + "\n"

    def parse(self, record: bytes) -> Optional[WrittenRow]:
        try:
            content = json.loads(record) if record.endswith(b"\n") else {}
            return WrittenRow(plain(content["path"]), "error" in content)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


class Csv(LinesOutput):
    """A table with a header."""

    @property
    def head(self) -> bytes:
        # Spreadsheets need the byte order mark to read names that are not ASCII.
        return codecs.BOM_UTF8 + csv_line(self.schema.columns).encode()

    def encode(self, prediction: Prediction) -> str:
        return csv_line(self.schema.row(prediction))

    def parse(self, record: bytes) -> Optional[WrittenRow]:
        try:
            text = record.decode("utf-8") if record.endswith(b"\n") else ""
            (row,) = csv.reader(io.StringIO(text, newline=""), strict=True)
        except (ValueError, csv.Error):
            return None
        if len(row) != len(self.schema.columns) or (not self._end and record != self.head):
            return None
        return WrittenRow(unguarded(row[0]), bool(row[self.schema.columns.index("error")]))

    def _records(self) -> Iterator[bytes]:
        record = b""
        for line in self._file:
            record += line
            if record.count(b'"') % 2 == 0:  # otherwise a name contains the line end
                yield record
                record = b""
        if record:
            yield record
