"""Prediction on Ray Data: the same answers, from as many machines as its cluster has.

Ray schedules, retries and writes; ours is what an actor does with its share of the files. Every machine has pplc, and
sees the model's folder and the images under the same paths, as on a shared drive.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from pplc_cli.base.errors import PredictError, one_line
from pplc_cli.base.files import user_path
from pplc_cli.config.sections import PredictConfig
from pplc_cli.predict.inputs.expand import expand, find
from pplc_cli.predict.inputs.source import ADDRESSES
from pplc_cli.predict.outputs.layout import OutputSchema
from pplc_cli.predict.outputs.open import SUFFIXES
from pplc_cli.predict.outputs.parquet import schema_of, table_of
from pplc_cli.predict.predictor import load_predictor

if TYPE_CHECKING:
    import numpy as np

FILES = 256  # an actor takes at a time
ROWS = 4096  # it gives back at a time, however many images an archive holds
FREE = {"num_cpus": 0}  # actors have all cores; what writes their answers must not wait for one


class PredictActor:
    """The model on one core of the cluster."""

    def __init__(self, folder: str, settings: PredictConfig, embeddings: bool, every: Optional[float]) -> None:
        self.predictor = load_predictor(folder, settings, features=embeddings)
        self.layout, self.every = OutputSchema.of(self.predictor, settings.top_k), every

    def __call__(self, files: dict[str, np.ndarray]) -> Iterator[Any]:
        """Turn a column of file names into Arrow tables with the columns of an OutputSchema, one row per image."""
        sources = (source for name in files["item"] for source in expand([str(name)], every=self.every))
        answers = self.predictor.predict(sources, top_k=self.layout.top_k, many=True)
        while rows := [self.layout.row(answer) for answer in islice(answers, ROWS)]:
            yield table_of(rows, schema_of(self.layout))


def predict_on_ray(
    cluster: str,
    words: Sequence[str],
    folder: Path,
    settings: PredictConfig,
    output: str,
    *,
    embeddings: bool = False,
    every: Optional[float] = None,
    force: bool = False,
) -> int:
    """Predict what words stand for, and write a folder of files in the format that its suffix names.

    Args:
        cluster: ``ray`` on this machine, or ``ray://HOST:PORT``.
        words: see :func:`pplc_cli.predict.inputs.expand.expand`.
        folder: the exported model.
        settings: engine, precision, batch size and number of labels; every actor has one thread.
        output: ``NAME.jsonl``, ``NAME.csv`` or ``NAME.parquet``, a folder.
        embeddings: instead of labels.
        every: see :func:`pplc_cli.predict.inputs.expand.expand`.
        force: replace such a folder.

    Returns:
        How many images could not be used.

    Raises:
        PredictError: Ray is not installed or reached, the output is there, or a machine failed for good.
    """
    try:
        import ray
    except ImportError:
        raise PredictError(f"--on {cluster} needs the package ray: pip install 'pplc[ray]'") from None
    target = user_path(output).absolute()
    if target.suffix.lower() not in SUFFIXES or (embeddings and target.suffix.lower() == ".csv"):
        raise PredictError(f"{output}: expected .jsonl, .csv (not of embeddings) or .parquet")
    _make_room(target, force)
    files = [{"item": _absolute(source.name)} for source in find(words) if source.data is None]
    if not files:
        raise PredictError("an image on standard input needs no cluster; leave out --on")
    arguments = {"folder": str(folder.absolute()), "embeddings": embeddings, "every": every}
    arguments["settings"] = dataclasses.replace(settings, threads=1, workers=1)
    try:
        address = None if cluster == "ray" else cluster
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        logging.disable(logging.WARNING)  # Ray Data tells every step, and sets its levels anew each time
        ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
        cores = int(ray.cluster_resources().get("CPU", 1))
        blocks = min(len(files), max(cores, len(files) // FILES))
        answers = ray.data.from_items(files, override_num_blocks=blocks).map_batches(
            PredictActor,
            batch_size=FILES,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cores),
            num_cpus=1,
            fn_constructor_kwargs=arguments,
        )
        kind = {".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}[target.suffix.lower()]
        getattr(answers, f"write_{kind}")(str(target), ray_remote_args=FREE)
        written = getattr(ray.data, f"read_{kind}")(str(target))
        return int(sum(int(batch["error"].notna().sum()) for batch in written.iter_batches(batch_format="pandas")))
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise PredictError(f"--on {cluster}: {one_line(error, stack=True)}") from None
    finally:
        logging.disable(logging.NOTSET)
        ray.shutdown()


def _make_room(target: Path, force: bool) -> None:
    there = list(target.iterdir()) if target.is_dir() else []
    ours = all(file.suffix in (".json", ".csv", ".parquet") for file in there)
    if target.is_file() or (there and not (force and ours)):
        advice = "--force replaces it" if ours and not target.is_file() else "name another folder"
        raise PredictError(f"{target} is there already; {advice}")
    if there:
        shutil.rmtree(target)


def _absolute(name: str) -> str:
    """The same file for a process that runs in another folder."""
    return name if name.startswith(ADDRESSES) else os.path.abspath(name)  # noqa: PTH100 - the text as it is
