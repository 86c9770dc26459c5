"""A program that calls the public functions from several threads; run it with the folder of a finished run.

``python anywhere.py RUN WHERE FUNCTION ...``: WHERE is a comma-separated list of ``thread``, ``main`` and ``both`` (two
threads at once), where the functions are called one after the other; or ``together``: each has a thread of its own.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pplc_cli

RUN = Path(sys.argv[1])


def _config(**changes):
    return pplc_cli.load_config(RUN / "config.yaml", changes)


def _run():
    from pplc_cli.training.runs.run_folder import RunFolder

    return RunFolder(RUN)


def train(folder):
    return pplc_cli.train(_config(**{"output": str(folder), "train.epochs": 1})).best["val_top1"] >= 0


def evaluate(folder):
    return pplc_cli.evaluate(_run(), _config(), output=folder).metrics["top1"] >= 0


def export(folder):
    return max(pplc_cli.export(_run(), _config(), output=folder).differences.values()) < 1e-4


def predict(folder):
    images = sorted(Path(_config().data.dir).glob("dog/*"))[:3]
    predictor = pplc_cli.Predictor(RUN / "inference_model", engine="paddle")
    return [prediction.error for prediction in predictor.predict(images)] == [None] * 3


def build(folder):
    import numpy as np

    network = pplc_cli.build_network("PPLCNet_x0_25", 3)
    pplc_cli.accelerate(network)
    import paddle

    loss = network(paddle.to_tensor(np.ones((2, 3, 32, 32), np.float32))).sum()
    loss.backward()
    return network.fc.weight.grad is not None


def _call(name):
    with tempfile.TemporaryDirectory() as folder:
        assert globals()[name](Path(folder) / "out"), name


def main() -> None:
    """Call the functions; an exception in any thread ends the program with its traceback."""
    if sys.argv[2] == "together":
        with ThreadPoolExecutor(len(sys.argv)) as pool:
            list(pool.map(_call, sys.argv[3:]))
        return
    for where in sys.argv[2].split(","):
        for name in sys.argv[3:]:
            if where == "main":
                _call(name)
            else:
                count = {"thread": 1, "both": 2}[where]
                with ThreadPoolExecutor(count) as pool:
                    list(pool.map(_call, [name] * count))
            print(where, name, flush=True)


if __name__ == "__main__":
    main()
