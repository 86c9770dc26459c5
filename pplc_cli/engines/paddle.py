"""Paddle Inference with oneDNN."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Optional

import numpy as np

from ..errors import PredictError
from ..runtime import load_paddle, physical_cores

# Shapes whose oneDNN primitives are kept: without a limit, memory grows with every new shape.
MKLDNN_CACHE = 10


class PaddleEngine:
    """An exported model that runs batches; see :class:`pplc_cli.engines.Engine`."""

    name = "paddle"

    def __init__(
        self, folder: Path, *, mkldnn: bool = True, threads: Optional[int] = None, precision: str = "float32"
    ) -> None:
        """Load ``inference.json`` (or ``inference.pdmodel``) and ``inference.pdiparams``.

        Raises:
            PredictError: a file is missing or Paddle cannot load it.
        """
        self.folder, self.mkldnn, self.precision = folder, mkldnn, precision
        self.threads = threads or physical_cores()
        program = next((folder / n for n in ("inference.json", "inference.pdmodel") if (folder / n).is_file()), None)
        weights = folder / "inference.pdiparams"
        if program is None or not weights.is_file():
            missing = "inference.json" if program is None else weights.name
            raise PredictError(f"{folder}: {missing} is missing; expected a folder that pplc export wrote")
        load_paddle(self.threads)
        from paddle import inference

        config = inference.Config(str(program), str(weights))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(self.threads)
        config.enable_memory_optim()
        if program.suffix == ".json":
            config.enable_new_executor()
            config.enable_new_ir(True)
        if mkldnn:
            config.enable_mkldnn()
            config.set_mkldnn_cache_capacity(MKLDNN_CACHE)
        else:
            config.disable_mkldnn()
        if precision == "bfloat16":
            config.enable_mkldnn_bfloat16()
        try:
            self._predictor: Any = inference.create_predictor(config)
        except Exception as error:  # Paddle's own kinds, with pages of stack
            raise PredictError(f"{folder}: Paddle cannot load this model: {_summary(error)}") from None
        # Paddle's predictors are not safe to share between threads.
        self._lock = threading.Lock()

    def run(self, images: np.ndarray) -> np.ndarray:
        """float32 (N, 3, H, W), normalised, to probabilities, float32 (N, classes)."""
        with self._lock:
            handle = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
            handle.copy_from_cpu(np.ascontiguousarray(images, np.float32))
            self._predictor.run()
            return self._predictor.get_output_handle(self._predictor.get_output_names()[0]).copy_to_cpu()

    def single(self) -> PaddleEngine:
        """Another predictor, of one thread."""
        return PaddleEngine(self.folder, mkldnn=self.mkldnn, threads=1, precision=self.precision)


def open_folder(folder: Path, *, precision: str, threads: Optional[int], features: bool) -> PaddleEngine:
    """See :func:`pplc_cli.engines.open_engine`."""
    if features:
        raise PredictError("the engine paddle gives probabilities alone; expected --engine pplc for embeddings")
    if precision == "int8":
        raise PredictError("the engine paddle runs float32 and bfloat16")
    return PaddleEngine(folder, precision=precision, threads=threads)


def _summary(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line]
    return (telling or lines or [type(error).__name__])[-1][:300]
