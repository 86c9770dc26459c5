"""The engine ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import PredictError, one_line
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.language.messages import tr
from pplc_cli.base.processes.forks import ForkSafeLock
from pplc_cli.predict.engines.base import run_in_batches
from pplc_cli.predict.engines.installed import not_installed, require
from pplc_cli.predict.engines.onnx_source import onnx_source


class OnnxRuntimeEngine:
    """An ONNX network in ONNX Runtime; see :class:`pplc_cli.predict.engines.base.Engine`."""

    name = "onnxruntime"

    def __init__(self, source: Union[Path, bytes], *, precision: str, threads: int, where: object) -> None:
        """Load a file, or the content of one.

        Args:
            source: from :func:`pplc_cli.predict.engines.onnx_source.onnx_source`.
            precision: the precision of that network.
            threads: threads per run.
            where: named in errors.

        Raises:
            PredictError: ONNX Runtime is not installed or cannot load the network.
        """
        try:
            import onnxruntime
        except ImportError:
            raise PredictError(not_installed("onnxruntime")) from None
        self._source, self._where = source, where
        self.precision, self.threads = precision, threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1  # these networks have no parallel branches
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # only errors, which are also raised
        # Let threads spin between layers, which is fast, but not between runs, when other threads need the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises its own classes
            raise PredictError(
                tr(
                    "{where}: ONNX Runtime cannot load this network: {reason}",
                    where=where,
                    reason=one_line(error, stack=True),
                )
            ) from None
        given, made = self._session.get_inputs(), self._session.get_outputs()
        if len(given) != 1 or not made:
            raise PredictError(
                tr("{where}: expected a network with one input, got {count}", where=where, count=len(given))
            )
        self._input, self._output = given[0], made[0].name
        classes = made[0].shape[-1] if made[0].shape else None
        self.outputs = classes if isinstance(classes, int) else None
        self._lock = ForkSafeLock()
        self._single = self if threads == 1 else None

    def run(self, images: np.ndarray) -> np.ndarray:
        """See :meth:`pplc_cli.predict.engines.base.Engine.run`; calls run in parallel."""
        return run_in_batches(self._run, images, self._input.shape, self._where)

    def _run(self, images: np.ndarray) -> np.ndarray:
        (result,) = self._session.run([self._output], {self._input.name: images})
        return np.asarray(result).reshape(len(images), -1)

    def single(self) -> OnnxRuntimeEngine:
        """One engine for all workers: a session with one thread computes on the calling thread."""
        with self._lock:
            if self._single is None:
                self._single = OnnxRuntimeEngine(self._source, precision=self.precision, threads=1, where=self._where)
            return self._single


def open_folder(folder: Path, *, precision: str, threads: Optional[int], features: bool) -> OnnxRuntimeEngine:
    """See :func:`pplc_cli.predict.engines.open.open_engine`."""
    require("onnxruntime")
    if precision == "bfloat16":
        raise PredictError(tr("the engine onnxruntime runs float32 and int8; pplc, paddle and openvino run bfloat16"))
    source = onnx_source(folder, precision=precision, features=features)
    return OnnxRuntimeEngine(source, precision=precision, threads=threads or physical_cores(), where=folder)
