"""Engines for scripts/benchmark_inference.py that pplc itself does not offer: ncnn and MNN, each in its own process.

    pip install ncnn pnnx MNN

Both run the ONNX file that pplc exports, converted by their own converters.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pplc_cli.base.errors import PredictError
from pplc_cli.base.timing import time_runs
from pplc_cli.benchmark.worker import LEAST_RUNS, WARM_SECONDS
from pplc_cli.data.synthetic import random_images

Run = Callable[[np.ndarray], np.ndarray]  # float32 (N, 3, H, W) to (N, classes)
PEERS = {"ncnn": ("ncnn", "pnnx"), "mnn": ("MNN",)}  # the packages that each needs


def available() -> list[str]:
    """The peers whose packages are installed."""
    return [name for name, needed in PEERS.items() if all(importlib.util.find_spec(each) for each in needed)]


def tool(name: str) -> str:
    """The path of a command of this Python's packages."""
    return str(Path(sys.executable).with_name(name))


def open_ncnn(model: Path, size: tuple[int, int], threads: int) -> Run:
    """Convert an ONNX file and open it with ncnn, which takes one image at a time."""
    import ncnn

    shape = f"inputshape=[1,3,{size[0]},{size[1]}]"
    subprocess.run([tool("pnnx"), model.name, shape, "fp16=0"], cwd=model.parent, check=True, capture_output=True)
    net = ncnn.Net()
    net.opt.num_threads = threads
    for narrow in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, narrow, False)
    net.load_param(str(model.with_suffix(".ncnn.param")))
    net.load_model(str(model.with_suffix(".ncnn.bin")))

    def run(images: np.ndarray) -> np.ndarray:
        rows = []
        for image in images:
            with net.create_extractor() as extractor:
                extractor.input("in0", ncnn.Mat(image))
                rows.append(np.array(extractor.extract("out0")[1]))
        return np.stack(rows)

    return run


def open_mnn(model: Path, size: tuple[int, int], threads: int) -> Run:
    """Convert an ONNX file and open it with MNN in float32."""
    import MNN.expr as expr
    import MNN.nn as nn

    converted = model.with_suffix(".mnn")
    # The command mnnconvert installs a package and reports its use to a server; this is what it calls.
    import _tools
    import onnx

    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(converted)])

    graph = onnx.load(model).graph
    given, result = graph.input[0].name, graph.output[0].name
    runtime = nn.create_runtime_manager(({"backend": "CPU", "numThread": threads, "precision": "high"},))
    module = nn.load_module_from_file(str(converted), [given], [result], runtime_manager=runtime)

    def run(images: np.ndarray) -> np.ndarray:
        value = expr.convert(expr.const(images, list(images.shape), expr.NCHW), expr.NC4HW4)
        return np.array(module.forward([value])[0].read())

    return run


OPEN = {"ncnn": open_ncnn, "mnn": open_mnn}


class Peer:
    """A process that runs batches on request; like :class:`pplc_cli.benchmark.worker.Worker`.

    Attributes:
        scores: float32 (classes,), the first prediction, of the image that workers predict first, too.
    """

    def __init__(self, name: str, model: bytes, size: tuple[int, int], threads: int) -> None:
        """Convert the model, start the process, and wait for its first prediction.

        Raises:
            PredictError: it ends before.
        """
        self._scratch = tempfile.TemporaryDirectory()
        path = Path(self._scratch.name) / "model.onnx"
        path.write_bytes(model)
        command = [sys.executable, __file__, name, str(path), str(size[0]), str(size[1]), str(threads)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.scores = np.asarray(self._receive()["scores"], np.float32)

    def run(self, batch: int, seconds: float) -> list[float]:
        """Run batches for ``seconds``, after a warm-up; return the seconds of each."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([batch, seconds]) + "\n")
        self._process.stdin.flush()
        times: list[float] = self._receive()["times"]
        return times

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._scratch.cleanup()

    def _receive(self) -> dict[str, Any]:
        """The next line of JSON; whatever else the process prints is passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith('{"'):
                message: dict[str, Any] = json.loads(line)
                return message
        raise PredictError(f"its process ended with status {self._process.wait()}")


def main() -> None:
    name, path, height, width, threads = sys.argv[1:]
    size = int(height), int(width)
    run = OPEN[name](Path(path), size, int(threads))
    print(json.dumps({"scores": run(random_images(1, size))[0].tolist()}), flush=True)
    for line in sys.stdin:
        batch, seconds = json.loads(line)
        once = functools.partial(run, random_images(batch, size))
        time_runs(once, WARM_SECONDS, at_least=LEAST_RUNS)
        print(json.dumps({"times": time_runs(once, seconds, at_least=LEAST_RUNS)}), flush=True)


if __name__ == "__main__":
    main()
