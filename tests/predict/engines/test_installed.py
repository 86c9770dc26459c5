"""An engine that is not installed is named with everything that it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HIDDEN = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from pplc_cli.base.errors import PredictError
from pplc_cli.predict.predictor import Predictor
try:
    Predictor(sys.argv[2], engine=sys.argv[3])
except PredictError as error:
    print(error)
"""


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_one_extra_brings_all_packages_of_an_engine(engine, untrained):
    line = [sys.executable, "-c", HIDDEN, f"{engine},onnx", str(untrained(0)), engine]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.stdout.endswith(f"is not installed; install it with: pip install 'pplc[{engine}]'\n"), done.stderr
    assert done.stdout.count("pip install") == 1
