"""The engine OpenVINO."""

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

IR = "inference.xml"


class OpenVinoEngine:
    """A network in OpenVINO's own format or ONNX; see :class:`pplc_cli.predict.engines.base.Engine`."""

    name = "openvino"

    def __init__(self, source: Union[Path, bytes], *, precision: str, threads: int, where: object) -> None:
        """Load a file, or the content of an ONNX file.

        Args:
            source: ``inference.xml``, or from :func:`pplc_cli.predict.engines.onnx_source.onnx_source`.
            precision: the precision to compute in; for int8, the file holds the int8 network.
            threads: threads per run.
            where: named in errors.

        Raises:
            PredictError: OpenVINO is not installed, cannot load the network, or this CPU lacks the precision.
        """
        try:
            import openvino
        except ImportError:
            raise PredictError(not_installed("openvino")) from None
        self._source, self._where = source, where
        self.precision, self.threads = precision, threads
        self._core: Any = openvino.Core()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        }
        self._requests: dict[bool, Any] = {}
        self._lock = ForkSafeLock()
        try:
            self._network: Any = self._core.read_model(source if isinstance(source, bytes) else str(source))
            self._shape = [side.get_length() if side.is_static else 0 for side in self._network.input().partial_shape]
            request = self._request(1)
            made = self._network.output(0).partial_shape
            self.outputs = made[-1].get_length() if made.rank.is_static and len(made) and made[-1].is_static else None
        except Exception as error:  # OpenVINO raises its own classes
            raise PredictError(
                tr(
                    "{where}: OpenVINO cannot load this network: {reason}",
                    where=where,
                    reason=one_line(error, stack=True),
                )
            ) from None
        kept = request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").to_string()
        if precision == "bfloat16" and kept != "bf16":
            raise PredictError(tr("OpenVINO does not support bfloat16 on this CPU; expected --precision float32"))

    def run(self, images: np.ndarray) -> np.ndarray:
        """See :meth:`pplc_cli.predict.engines.base.Engine.run`; one call runs at a time."""
        return run_in_batches(self._run, images, self._shape, self._where)

    def _run(self, images: np.ndarray) -> np.ndarray:
        with self._lock:
            result = self._request(len(images)).infer([images], share_inputs=True)[0]
        return result.reshape(len(images), -1)

    def _request(self, batch: int) -> Any:
        """The request for a batch size.

        A single image has its own request, compiled for its shape: it takes 0.8 of the time.
        """
        alone = batch == 1 and not self._shape[0] and all(self._shape[1:])
        if alone not in self._requests:
            network = self._network.clone()
            if alone:
                network.reshape([1, *self._shape[1:]])
            compiled = self._core.compile_model(network, "CPU", self._settings)
            self._requests[alone] = compiled.create_infer_request()
        return self._requests[alone]

    def single(self) -> OpenVinoEngine:
        """A new engine for each worker, since a request serves one caller."""
        return OpenVinoEngine(self._source, precision=self.precision, threads=1, where=self._where)


def open_folder(folder: Path, *, precision: str, threads: Optional[int], features: bool) -> OpenVinoEngine:
    """See :func:`pplc_cli.predict.engines.open.open_engine`."""
    require("openvino")
    own = (folder / IR).is_file() and precision != "int8" and not features
    source = folder / IR if own else onnx_source(folder, precision=precision, features=features)
    return OpenVinoEngine(source, precision=precision, threads=threads or physical_cores(), where=folder)
