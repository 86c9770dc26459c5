"""PaddleX's own predictor, as people have it: Paddle Inference with oneDNN behind PaddleX's preprocessing."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import PredictError, one_line
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.paddle import load_paddle
from pplc_cli.predict.engines.installed import not_installed
from pplc_cli.predict.exported_model import read_exported

_RUN_MODES = {"float32": "mkldnn", "bfloat16": "mkldnn_bf16"}


class PaddleXEngine:
    """An exported folder in PaddleX; see :class:`pplc_cli.predict.engines.base.ImageEngine`."""

    name = "paddlex"

    def __init__(self, folder: Path, *, precision: str, threads: int) -> None:
        """Load a folder by the name that it has in PaddleX.

        Raises:
            PredictError: PaddleX is not installed, or cannot load the folder.
        """
        self.precision, self.threads = precision, threads
        name = read_exported(folder).name
        load_paddle(threads)
        # It asks its servers for models even where the folder is local, and tells them and the user of itself.
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
        except Exception as error:  # of many kinds, from assertions to Paddle's own
            raise PredictError(f"{folder}: PaddleX cannot load {name!r}: {one_line(error, stack=True)}") from None
        self._predictor: Any = model._predictor
        self._lock = threading.Lock()

    def run(self, images: np.ndarray) -> np.ndarray:
        """float32 (N, 3, H, W), normalised, to probabilities, float32 (N, classes), past PaddleX's preprocessing."""
        with self._lock:
            (probabilities,) = self._predictor.runner(x=[np.ascontiguousarray(images, np.float32)])
        return probabilities

    def run_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 RGB images (H, W, 3) to probabilities, float32 (N, classes), rounded by PaddleX to five digits."""
        if not images:
            raise PredictError("expected at least one image")
        pictures = [np.ascontiguousarray(image[..., ::-1]) for image in images]  # it takes them as BGR
        with self._lock:
            answers = list(self._predictor(pictures, batch_size=len(pictures), topk=_ALL))
        probabilities = np.zeros((len(answers), len(answers[0]["scores"])), np.float32)
        for place, answer in enumerate(answers):
            ids = answer["class_ids"]  # 3.7.2 gives every answer those of the whole batch
            probabilities[place, ids[place] if ids.ndim == 2 else ids] = answer["scores"]
        return probabilities

    def single(self) -> PaddleXEngine:
        """This one, for the reason that :meth:`pplc_cli.predict.engines.paddle.PaddleEngine.single` has."""
        return self


_ALL = 1 << 30  # more classes than any network has: they all come, sorted


def open_folder(folder: Path, *, precision: str, threads: Optional[int], features: bool) -> PaddleXEngine:
    """See :func:`pplc_cli.predict.engines.open.open_engine`."""
    if features:
        raise PredictError("PaddleX gives probabilities alone; pplc, onnxruntime and openvino give features")
    if precision not in _RUN_MODES:
        raise PredictError("PaddleX runs float32 and bfloat16 on CPUs; pplc, onnxruntime and openvino run int8")
    return PaddleXEngine(folder, precision=precision, threads=threads or physical_cores())
