"""The engine Paddle Inference, with oneDNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError, PredictError, one_line
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.kernels.graph.paddle_reader import UnknownOperation, read_paddle
from pplc_cli.predict.engines.base import run_in_batches

# Shapes whose oneDNN primitives are cached: without a limit, memory grows with every new shape. With it, random batch
# sizes of 1 to 32 take 1.5 times the memory of one batch size, so batches need no padding to a fixed size.
MKLDNN_CACHE = 10


class PaddleEngine:
    """An exported model in Paddle Inference; see :class:`pplc_cli.predict.engines.base.Engine`."""

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
        self.outputs = classes_of(folder)
        program = next((folder / n for n in ("inference.json", "inference.pdmodel") if (folder / n).is_file()), None)
        weights = folder / "inference.pdiparams"
        if program is None or not weights.is_file():
            missing = "inference.json" if program is None else weights.name
            raise PredictError(
                tr(
                    "{folder}: {missing} is missing; expected a folder that pplc export wrote",
                    folder=folder,
                    missing=missing,
                )
            )
        paddle = load_paddle(self.threads)
        from paddle import inference

        if precision == "bfloat16" and not paddle.base.core.supports_bfloat16():
            raise PredictError(tr("Paddle does not support bfloat16 on this CPU; expected --precision float32"))

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
        except Exception as error:  # Paddle raises its own classes, with long stack traces
            raise PredictError(
                tr(
                    "{folder}: Paddle cannot load this model: {reason}",
                    folder=folder,
                    reason=one_line(error, stack=True),
                )
            ) from None
        # Paddle's predictors are not thread-safe.
        self._lock = ForkSafeLock()
        self._input: Any = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._shape = self._input.shape()  # [0] if the batch size is variable

    def run(self, images: np.ndarray) -> np.ndarray:
        """See :meth:`pplc_cli.predict.engines.base.Engine.run`; one call runs at a time."""
        return run_in_batches(self.run_batch, images, self._shape, self.folder)

    def run_batch(self, images: np.ndarray) -> np.ndarray:
        """Run one batch, float32 (N, 3, H, W), and return the network's first output, whatever it is."""
        with self._lock:
            self._input.copy_from_cpu(images)
            self._predictor.run()
            return self._predictor.get_output_handle(self._predictor.get_output_names()[0]).copy_to_cpu()

    def single(self) -> PaddleEngine:
        """This engine: Paddle holds the GIL while it runs, so single-threaded engines could not run in parallel."""
        return self


def classes_of(folder: Path) -> Optional[int]:
    """Check Paddle's files before Paddle opens them: it trusts them, and a wrong size can end the process.

    Returns:
        How many classes the network has; None if pplc cannot read its format or its operations.

    Raises:
        PredictError: a file is damaged.
    """
    if not all((folder / name).is_file() for name in ("inference.json", "inference.pdiparams")):
        return None
    try:
        return read_paddle(folder).classes
    except UnknownOperation:
        return None
    except ModelError as error:
        raise PredictError(str(error)) from None


def open_folder(folder: Path, *, precision: str, threads: Optional[int], features: bool) -> PaddleEngine:
    """See :func:`pplc_cli.predict.engines.open.open_engine`."""
    if features:
        raise PredictError(tr("the engine paddle has no embeddings; expected --engine pplc, onnxruntime or openvino"))
    if precision == "int8":
        raise PredictError(tr("the engine paddle runs float32 and bfloat16; pplc, onnxruntime and openvino run int8"))
    return PaddleEngine(folder, precision=precision, threads=threads)
