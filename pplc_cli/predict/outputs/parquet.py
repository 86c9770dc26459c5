"""Predictions in a Parquet file.

Parquet writes its footer last, so a file whose writer was killed is unreadable. Predictions are therefore written to
small complete files, ``FILE.parts/NUMBER.parquet`` by the number of their first row, and merged at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import atomic_file, remove_leftovers
from pplc_cli.predict.outputs.base import Output, OutputSchema, WrittenRow
from pplc_cli.predict.prediction import Prediction

ROWS = 16384  # per row group of labels
EMBEDDINGS = 32 << 20  # bytes per row group of embeddings


def arrow_schema(schema: OutputSchema) -> Any:
    """The columns with their types, a ``pyarrow.Schema``."""
    import pyarrow as pa

    kinds = {
        "score": pa.float32(),
        "embedding": pa.list_(pa.float32(), schema.embedding or 1),
        "unknown": pa.bool_(),
        "distance": pa.float32(),
        "set": pa.list_(pa.string()),
    }
    return pa.schema([(name, kinds.get(name.split("_")[0], pa.string())) for name in schema.columns])


def arrow_table(rows: Sequence[Sequence[Any]], schema: Any) -> Any:
    """Rows as a ``pyarrow.Table`` with an Arrow schema."""
    import pyarrow as pa

    columns = zip(*rows) if rows else ([] for _ in schema)
    return pa.Table.from_arrays([pa.array(list(c), f.type) for c, f in zip(columns, schema)], schema=schema)


class Parquet(Output):
    """A Parquet file with the columns of an OutputSchema; embeddings are fixed-size lists of float32."""

    def __init__(self, path: Path, schema: OutputSchema) -> None:
        super().__init__(path, schema)
        try:
            self.arrow_schema = arrow_schema(schema)
        except ImportError:
            raise PredictError(
                tr("{path}: Parquet needs the package pyarrow: pip install 'pplc[parquet]'", path=path)
            ) from None
        self.parts = path.with_name(f"{path.name}.parts")
        self._rows: list[list[Any]] = []
        self._group = EMBEDDINGS // (4 * schema.embedding) if schema.embedding else ROWS
        self._start = 0  # number of the first row in memory
        self._stale: list[Path] = []

    def open(self) -> None:
        self.parts.mkdir(parents=True, exist_ok=True)
        self._acquire(self.parts / "lock")
        remove_leftovers(self.parts)
        remove_leftovers(self.path.parent)  # of a killed merge

    def clear(self) -> None:
        self._stale, self._start = [*self._numbered(), self.path], 0

    def written(self) -> Iterator[WrittenRow]:
        import pyarrow.parquet as pq

        files = self._consecutive()
        self._stale = [file for file in self._numbered() if file not in files]
        self._start = 0
        for file in files:
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(columns=["path", "error"]):
                    for path, error in zip(*(column.to_pylist() for column in batch.columns)):
                        self._start += 1
                        yield WrittenRow(path, error is not None)

    def write(self, prediction: Prediction) -> None:
        self._rows.append(self.schema.row(prediction))
        if len(self._rows) >= self._group:
            self.sync()

    def sync(self) -> None:
        import pyarrow.parquet as pq

        while self._stale:
            self._stale.pop().unlink(missing_ok=True)
        if not self._rows:
            return
        with atomic_file(self.parts / f"{self._start:012}.parquet") as temporary:
            pq.write_table(arrow_table(self._rows, self.arrow_schema), temporary)
        self._start += len(self._rows)
        self._rows = []

    def finish(self) -> None:
        """Merge the parts; a file of an earlier call that holds all rows is kept."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.sync()
        files = self._consecutive()
        if files == [self.path]:
            return
        with atomic_file(self.path) as temporary, pq.ParquetWriter(temporary, self.arrow_schema) as writer:
            kept = self.arrow_schema.empty_table()
            for file in files:
                with pq.ParquetFile(file) as table:
                    for batch in table.iter_batches(batch_size=self._group):
                        kept = pa.concat_tables([kept, pa.Table.from_batches([batch], self.arrow_schema)])
                        while kept.num_rows >= self._group:  # row groups must not depend on how the parts were cut
                            writer.write_table(kept.slice(0, self._group))
                            kept = kept.slice(self._group)
            if kept.num_rows:
                writer.write_table(kept)

    def close(self) -> None:
        complete = self._lock_file is not None and self.path.is_file() and self._consecutive() == [self.path]
        if complete:
            remove_leftovers(self.parts)
            for part in self._numbered():
                part.unlink(missing_ok=True)
        super().close()
        if complete:
            with contextlib.suppress(OSError):  # another process has begun to write there
                self.parts.rmdir()

    def _numbered(self) -> list[Path]:
        return sorted(self.parts.glob("*.parquet"))

    def _consecutive(self) -> list[Path]:
        """The files that hold the rows without a gap: the merged file, and the parts that are not in it."""
        import pyarrow.parquet as pq

        files, rows = ([self.path], pq.read_metadata(self.path).num_rows) if self.path.is_file() else ([], 0)
        for part in self._numbered():
            if int(part.stem) == rows:
                files.append(part)
                rows += pq.read_metadata(part).num_rows
        return files
