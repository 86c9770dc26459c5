"""Choose an output format by the file's suffix."""

from __future__ import annotations

from pathlib import Path

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.predict.outputs.base import Output, OutputSchema
from pplc_cli.predict.outputs.lines import Csv, JsonLines

SUFFIXES = (".jsonl", ".csv", ".parquet")


def open_output(path: Path, schema: OutputSchema) -> Output:
    """The output for a file, by its suffix; :meth:`Output.open` then opens the file.

    Raises:
        PredictError: the suffix is unknown, the format cannot hold embeddings, or a package is missing.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return JsonLines(path, schema)
    if suffix == ".csv":
        if schema.embedding:
            raise PredictError(tr("{path}: CSV has no place for embeddings; name a .jsonl or .parquet file", path=path))
        return Csv(path, schema)
    if suffix == ".parquet":
        from pplc_cli.predict.outputs.parquet import Parquet

        return Parquet(path, schema)
    raise PredictError(
        tr(
            "{path}: expected a file of {suffixes}, got {suffix!r}",
            path=path,
            suffixes=", ".join(SUFFIXES),
            suffix=suffix or tr("no suffix"),
        )
    )
