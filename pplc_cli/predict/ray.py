"""Predict on the machines of a Ray cluster, with the same predictions as on one machine.

Ray Data schedules, retries and writes; pplc provides the actors, each of which predicts a share of the files. Every
machine needs pplc, and the model and the images under the same paths, for example on a shared drive.
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
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.base.text import guarded
from pplc_cli.config.sections import PredictConfig
from pplc_cli.predict.inputs.expand import Skipped, expand, find
from pplc_cli.predict.inputs.source import ADDRESSES
from pplc_cli.predict.outputs.base import OutputSchema
from pplc_cli.predict.outputs.open import SUFFIXES
from pplc_cli.predict.outputs.parquet import arrow_schema, arrow_table
from pplc_cli.predict.predictor import load_predictor

if TYPE_CHECKING:
    import numpy as np

FILES = 256  # per call of an actor
ROWS = 4096  # per table that an actor returns, however many images an archive holds
FREE = {"num_cpus": 0}  # the actors use all cores, so the tasks that write must not wait for one


class PredictActor:
    """A predictor on one core of the cluster."""

    def __init__(
        self, folder: str, settings: PredictConfig, embeddings: bool, every: Optional[float], guard: bool
    ) -> None:
        """Args as for :func:`predict_on_ray`; guard: the rows go to CSV."""
        self.guard = guard
        self.predictor = load_predictor(folder, settings, features=embeddings)
        self.schema, self.every = OutputSchema.of(self.predictor, settings.top_k), every

    def __call__(self, files: dict[str, np.ndarray]) -> Iterator[Any]:
        """Predict the images of a column of file names; yields Arrow tables with one row per image."""
        sources = (source for name in files["item"] for source in expand([str(name)], every=self.every))
        predictions = self.predictor.predict(sources, top_k=self.schema.top_k, many=True)
        while rows := [self.schema.row(prediction) for prediction in islice(predictions, ROWS)]:
            if self.guard:
                rows = [[guarded(value) if isinstance(value, str) else value for value in row] for row in rows]
            yield arrow_table(rows, arrow_schema(self.schema))


def predict_on_ray(
    cluster: str,
    arguments: Sequence[str],
    folder: Path,
    settings: PredictConfig,
    output: str,
    *,
    embeddings: bool = False,
    every: Optional[float] = None,
    force: bool = False,
    skipped: Optional[Skipped] = None,
) -> int:
    """Predict the images of arguments, and write a folder of files.

    Args:
        cluster: ``ray`` for this machine, or ``ray://HOST:PORT``.
        arguments, every, skipped: see :func:`pplc_cli.predict.inputs.expand.expand`.
        folder: the exported model.
        settings: engine, precision, batch size and number of labels; every actor has one thread.
        output: the folder ``NAME.jsonl``, ``NAME.csv`` or ``NAME.parquet``; the suffix determines the files' format.
        embeddings: write embeddings instead of labels.
        force: replace the files of an earlier run.

    Returns:
        The number of images that could not be used.

    Raises:
        PredictError: Ray is not installed, the cluster cannot be reached, the output exists, or retries failed.
    """
    try:
        import ray
    except ImportError:
        raise PredictError(
            tr("--on {cluster} needs the package ray: pip install 'pplc[ray]'", cluster=cluster)
        ) from None
    target = user_path(output).absolute()
    lists = embeddings or settings.coverage is not None
    if target.suffix.lower() not in SUFFIXES or (lists and target.suffix.lower() == ".csv"):
        raise PredictError(
            tr("{output}: expected .jsonl, .csv (not of embeddings or sets of labels) or .parquet", output=output)
        )
    _clear(target, force)
    files = [{"item": _absolute(source.name)} for source in find(arguments, skipped) if source.data is None]
    if not files:
        raise PredictError(tr("--on cannot predict an image from standard input; leave out --on"))
    actor = {"folder": str(folder.absolute()), "embeddings": embeddings, "every": every}
    actor["guard"] = target.suffix.lower() == ".csv"
    actor["settings"] = dataclasses.replace(settings, threads=1, workers=1)
    try:
        address = None if cluster == "ray" else cluster
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        logging.disable(logging.WARNING)  # Ray Data logs every step, and resets its own levels each time
        return _write(ray, files, actor, target)
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise PredictError(f"--on {cluster}: {one_line(error, stack=True)}") from None
    finally:
        logging.disable(logging.NOTSET)
        ray.shutdown()


def _write(ray: Any, files: list[dict[str, str]], actor: dict[str, Any], target: Path) -> int:
    """Predict files with one actor per core, and write the target; returns the number of images with an error.

    Args:
        ray: the package, connected to a cluster.
        files: rows with a file name each.
        actor: arguments of :class:`PredictActor`.
        target: the folder to write.
    """
    ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
    cores = int(ray.cluster_resources().get("CPU", 1))
    blocks = min(len(files), max(cores, len(files) // FILES))
    predictions = ray.data.from_items(files, override_num_blocks=blocks).map_batches(
        PredictActor,
        batch_size=FILES,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cores),
        num_cpus=1,
        fn_constructor_kwargs=actor,
    )
    kind = {".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}[target.suffix.lower()]
    getattr(predictions, f"write_{kind}")(str(target), ray_remote_args=FREE)
    written = getattr(ray.data, f"read_{kind}")(str(target))
    return int(sum(int(batch["error"].notna().sum()) for batch in written.iter_batches(batch_format="pandas")))


def _clear(target: Path, force: bool) -> None:
    """Remove the files of an earlier run, and refuse to remove others."""
    files = list(target.iterdir()) if target.is_dir() else []
    ours = all(file.suffix in (".json", ".csv", ".parquet") for file in files)
    if target.is_file() or (files and not (force and ours)):
        if ours and not target.is_file():
            raise PredictError(tr("{folder} already exists; --force replaces it", folder=target))
        raise PredictError(tr("{folder} already exists; name another folder", folder=target))
    if files:
        shutil.rmtree(target)


def _absolute(name: str) -> str:
    """The name of the same file in a process with another working folder."""
    return name if name.startswith(ADDRESSES) else os.path.abspath(name)  # noqa: PTH100 - Path() would change the text
