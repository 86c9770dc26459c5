"""Open an output file by its suffix."""

from __future__ import annotations

from pathlib import Path

from pplc_cli.base.errors import PredictError
from pplc_cli.predict.outputs.layout import Output, OutputSchema
from pplc_cli.predict.outputs.lines import Csv, JsonLines

SUFFIXES = (".jsonl", ".csv", ".parquet")


def open_output(path: Path, layout: OutputSchema) -> Output:
    """By the file's suffix.

    Raises:
        PredictError: it is none of ours, or a package is missing.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return JsonLines(path, layout)
    if suffix == ".csv":
        if layout.embedding:
            raise PredictError(f"{path}: CSV has no place for embeddings; name a .jsonl or .parquet file")
        return Csv(path, layout)
    if suffix == ".parquet":
        from pplc_cli.predict.outputs.parquet import Parquet

        return Parquet(path, layout)
    raise PredictError(f"{path}: expected a file of {', '.join(SUFFIXES)}, got {suffix or 'no suffix'!r}")
