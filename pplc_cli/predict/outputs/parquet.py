"""A Parquet file of answers.

Parquet writes its directory last, so that a file whose writer was killed is lost. Answers are therefore collected in
small whole files, ``FILE.parts/NUMBER.parquet`` by the number of their first row, and put together at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pplc_cli.base.errors import PredictError
from pplc_cli.base.files import atomic_file, remove_leftovers
from pplc_cli.predict.outputs.layout import Done, Output, OutputSchema
from pplc_cli.predict.prediction import Prediction

ROWS = 16384  # of a group of labels
EMBEDDINGS = 32 << 20  # bytes of a group


def schema_of(layout: OutputSchema) -> Any:
    """The columns' types, a ``pyarrow.Schema``."""
    import pyarrow as pa

    kinds = {"score": pa.float32(), "embedding": pa.list_(pa.float32(), layout.embedding or 1)}
    return pa.schema([(name, kinds.get(name.split("_")[0], pa.string())) for name in layout.columns])


def table_of(rows: Sequence[Sequence[Any]], schema: Any) -> Any:
    """Rows as a ``pyarrow.Table``."""
    import pyarrow as pa

    columns = zip(*rows) if rows else ([] for _ in schema)
    return pa.Table.from_arrays([pa.array(list(c), f.type) for c, f in zip(columns, schema)], schema=schema)


class Parquet(Output):
    """A Parquet file with the columns of an OutputSchema; embeddings are lists of float32 of one length."""

    def __init__(self, path: Path, layout: OutputSchema) -> None:
        super().__init__(path, layout)
        try:
            self.schema = schema_of(layout)
        except ImportError:
            raise PredictError(f"{path}: Parquet needs the package pyarrow: pip install 'pplc[parquet]'") from None
        self.parts = path.with_name(f"{path.name}.parts")
        self._rows: list[list[Any]] = []
        self._group = EMBEDDINGS // (4 * layout.embedding) if layout.embedding else ROWS
        self._start = 0  # the number of the first of the rows at hand
        self._stale: list[Path] = []

    def claim(self) -> None:
        self.parts.mkdir(parents=True, exist_ok=True)
        self._hold(self.parts / "lock")
        remove_leftovers(self.parts)

    def clear(self) -> None:
        self._stale, self._start = [*self._numbered(), self.path], 0

    def done(self) -> Iterator[Done]:
        import pyarrow.parquet as pq

        files = self._whole()
        self._stale = [file for file in self._numbered() if file not in files]
        self._start = 0
        for file in files:
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(columns=["path", "error"]):
                    for path, error in zip(*(column.to_pylist() for column in batch.columns)):
                        self._start += 1
                        yield Done(path, error is not None)

    def write(self, answer: Prediction) -> None:
        self._rows.append(self.layout.row(answer))
        if len(self._rows) >= self._group:
            self.sync()

    def sync(self) -> None:
        import pyarrow.parquet as pq

        while self._stale:
            self._stale.pop().unlink(missing_ok=True)
        if not self._rows:
            return
        with atomic_file(self.parts / f"{self._start:012}.parquet") as temporary:
            pq.write_table(table_of(self._rows, self.schema), temporary)
        self._start += len(self._rows)
        self._rows = []

    def finish(self) -> None:
        """Put the parts together; a file of an earlier call that has all rows stays."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.sync()
        files = self._whole()
        if files == [self.path]:
            return
        with atomic_file(self.path) as temporary, pq.ParquetWriter(temporary, self.schema) as writer:
            kept = self.schema.empty_table()
            for file in files:
                with pq.ParquetFile(file) as table:
                    for batch in table.iter_batches(batch_size=self._group):
                        kept = pa.concat_tables([kept, pa.Table.from_batches([batch], self.schema)])
                        while kept.num_rows >= self._group:  # groups do not depend on when parts were written
                            writer.write_table(kept.slice(0, self._group))
                            kept = kept.slice(self._group)
            if kept.num_rows:
                writer.write_table(kept)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
        if self.path.is_file() and self._whole() == [self.path]:
            shutil.rmtree(self.parts, ignore_errors=True)

    def _numbered(self) -> list[Path]:
        return sorted(self.parts.glob("*.parquet"))

    def _whole(self) -> list[Path]:
        """Files whose rows follow one another: the one put together, and parts that are not in it."""
        import pyarrow.parquet as pq

        files, rows = ([self.path], pq.read_metadata(self.path).num_rows) if self.path.is_file() else ([], 0)
        for part in self._numbered():
            if int(part.stem) == rows:
                files.append(part)
                rows += pq.read_metadata(part).num_rows
        return files
