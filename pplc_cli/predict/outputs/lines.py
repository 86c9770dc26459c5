"""Answers as JSON lines, CSV and Parquet: how each looks, and files that grow while a run goes on.

Scores are rounded to 6 decimals everywhere. Embeddings are float32; as text they have 9 significant digits, which read
back as the same numbers.
"""

from __future__ import annotations

import abc
import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Optional

from pplc_cli.base.files import plain
from pplc_cli.predict.outputs.layout import Done, Output, OutputSchema
from pplc_cli.predict.prediction import Prediction


def json_line(answer: Prediction) -> str:
    """A line of JSON, without its end."""
    if answer.embedding is None:
        return json.dumps(answer.to_dict(), ensure_ascii=False)
    # json would write 17 digits a number, of which 9 are known, and take four times as long.
    numbers = ", ".join(["%.9g"] * len(answer.embedding)) % tuple(answer.embedding.tolist())
    return f'{{"path": {json.dumps(answer.path, ensure_ascii=False)}, "embedding": [{numbers}]}}'


def csv_line(values: list[Any]) -> str:
    """A record of CSV with its end; scores have 6 decimals."""
    text = io.StringIO()
    cells = (f"{value:.6f}" if isinstance(value, float) else value for value in values)
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


class LinesOutput(Output):
    """Records of text, appended to the file itself."""

    _file: BinaryIO

    def __init__(self, path: Path, layout: OutputSchema) -> None:
        super().__init__(path, layout)
        self._end: Optional[int] = None  # of the last whole record, until the rest is cut off

    def claim(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._hold(self.path.with_name(f".{self.path.name}.lock"))
        self._file = self.path.open("a+b", buffering=1 << 14)

    def clear(self) -> None:
        self._end = 0

    def done(self) -> Iterator[Done]:
        self._end = 0
        self._file.seek(0)
        for record in self._records():
            done = self.parse(record)
            if done is None:
                return
            if self._end or not self.head:
                yield done
            self._end += len(record)

    def write(self, answer: Prediction) -> None:
        self._cut()
        self._file.write(self.encode(answer).encode("utf-8", "backslashreplace"))

    def sync(self) -> None:
        self._cut()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be written has been told
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
        """What the file begins with."""
        return b""

    @abc.abstractmethod
    def encode(self, answer: Prediction) -> str:
        """A record, with its end."""

    @abc.abstractmethod
    def parse(self, record: bytes) -> Optional[Done]:
        """None: it is not whole, or none of ours."""

    def _records(self) -> Iterator[bytes]:
        """Pieces of the file that may be records."""
        for line in self._file:  # noqa: UP028 - whose close `yield from` would call along with this generator's
            yield line


class JsonLines(LinesOutput):
    """An object a line."""

    def encode(self, answer: Prediction) -> str:
        return json_line(answer) + "\n"

    def parse(self, record: bytes) -> Optional[Done]:
        try:
            content = json.loads(record) if record.endswith(b"\n") else {}
            return Done(plain(content["path"]), "error" in content)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


class Csv(LinesOutput):
    """A table with a line of names."""

    @property
    def head(self) -> bytes:
        return csv_line(self.layout.columns).encode()

    def encode(self, answer: Prediction) -> str:
        return csv_line(self.layout.row(answer))

    def parse(self, record: bytes) -> Optional[Done]:
        try:
            text = record.decode("utf-8") if record.endswith(b"\n") else ""
            (row,) = csv.reader(io.StringIO(text, newline=""), strict=True)
        except (ValueError, csv.Error):
            return None
        if len(row) != len(self.layout.columns) or (not self._end and record != self.head):
            return None
        return Done(row[0], bool(row[3]))

    def _records(self) -> Iterator[bytes]:
        record = b""
        for line in self._file:
            record += line
            if record.count(b'"') % 2 == 0:  # else a name goes on in the next line
                yield record
                record = b""
        if record:
            yield record
