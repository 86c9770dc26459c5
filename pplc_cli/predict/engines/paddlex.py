"""The engine PaddleX, with its defaults: PaddleX's preprocessing, then Paddle Inference with oneDNN."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import PredictError, one_line
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.predict.engines.base import finite, run_in_batches
from pplc_cli.predict.engines.installed import not_installed
from pplc_cli.predict.engines.paddle import classes_of
from pplc_cli.predict.exported_model import read_exported

_RUN_MODES = {"float32": "mkldnn", "bfloat16": "mkldnn_bf16"}
_ALL = 1 << 30  # more than any network has classes: PaddleX returns all of them, sorted


class PaddleXEngine:
    """An exported folder in PaddleX; see :class:`pplc_cli.predict.engines.base.ImageEngine`."""

    name = "paddlex"

    def __init__(self, folder: Path, *, precision: str, threads: int) -> None:
        """Load a folder as the PaddleX model that its ``inference.yml`` names.

        Raises:
            PredictError: PaddleX is not installed, or cannot load the folder.
        """
        self.precision, self.threads = precision, threads
        name, self.outputs = read_exported(folder).name, classes_of(folder)
        self._folder = folder
        load_paddle(threads)
        # By default PaddleX connects to its model servers and prints a message, even for a local folder.
        os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import paddlex
        except ImportError as error:
            raise PredictError(f"{not_installed('paddlex')} ({one_line(error, stack=True)})") from None
        paddlex.utils.logging.setup_logging("WARNING")
        settings = {"run_mode": _RUN_MODES[precision], "cpu_threads": threads}
        try:
            model = paddlex.create_model(
                name, model_dir=str(folder), device="cpu", engine="paddle_static", engine_config=settings
            )
        except Exception as error:  # many classes, from AssertionError to Paddle's own
            raise PredictError(
                tr(
                    "{folder}: PaddleX cannot load {name!r}: {reason}",
                    folder=folder,
                    name=name,
                    reason=one_line(error, stack=True),
                )
            ) from None
        self._predictor: Any = model._predictor
        self._lock = ForkSafeLock()

    def run(self, images: np.ndarray) -> np.ndarray:
        """See :meth:`pplc_cli.predict.engines.base.Engine.run`; skips PaddleX's preprocessing."""
        return run_in_batches(self._run, images, (0, 3, 0, 0), self._folder)

    def _run(self, images: np.ndarray) -> np.ndarray:
        with self._lock:
            (probabilities,) = self._predictor.runner(x=[images])
        return probabilities

    def run_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """See :meth:`pplc_cli.predict.engines.base.ImageEngine.run_images`; PaddleX rounds to five digits."""
        if not images:
            raise PredictError(tr("expected at least one image"))
        in_bgr = [np.ascontiguousarray(image[..., ::-1]) for image in images]
        try:
            with self._lock:
                results = list(self._predictor(in_bgr, batch_size=len(in_bgr), topk=_ALL))
        except Exception as error:  # PaddleX's and Paddle's own classes
            raise PredictError(
                tr("{folder}: PaddleX failed to run: {reason}", folder=self._folder, reason=one_line(error, stack=True))
            ) from None
        probabilities = np.zeros((len(results), len(results[0]["scores"])), np.float32)
        for row, result in enumerate(results):
            ids = result["class_ids"]  # PaddleX 3.7.2 puts the ids of the whole batch into every result
            probabilities[row, ids[row] if ids.ndim == 2 else ids] = result["scores"]
        return finite(probabilities, self._folder)

    def single(self) -> PaddleXEngine:
        """This engine; see :meth:`pplc_cli.predict.engines.paddle.PaddleEngine.single`."""
        return self


def open_folder(folder: Path, *, precision: str, threads: Optional[int], features: bool) -> PaddleXEngine:
    """See :func:`pplc_cli.predict.engines.open.open_engine`."""
    if features:
        raise PredictError(tr("the engine paddlex has no embeddings; expected --engine pplc, onnxruntime or openvino"))
    if precision not in _RUN_MODES:
        raise PredictError(tr("the engine paddlex runs float32 and bfloat16; pplc, onnxruntime and openvino run int8"))
    return PaddleXEngine(folder, precision=precision, threads=threads or physical_cores())
