"""Small files in place of PPLCNet_x0_25's official weights."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np

from pplc_cli.models.registry import find_network

SPEC = find_network("PPLCNet_x0_25")
NAME = "PPLCNet_x0_25_pretrained.pdparams"
WEIGHTS = pickle.dumps({"fc.weight": np.random.default_rng(0).random((250, 300), np.float32)}, 2)
OTHERS = pickle.dumps({"fc.weight": np.random.default_rng(1).random((250, 300), np.float32)}, 2)


def digits(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
