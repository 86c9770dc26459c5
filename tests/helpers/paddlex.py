"""Compare pplc's predictions with PaddleX's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from pplc_cli import Predictor

PADDLEX = """
import json, sys
import paddlex
folder, name, *files = sys.argv[1:]
model = paddlex.create_model(name, model_dir=folder, device="cpu")
for result in model.predict(files, batch_size=4, topk=2):
    content = result.json["res"]
    print("RESULT" + json.dumps([content["label_names"], [float(s) for s in content["scores"]]]))
"""


def paddlex_predictions(folder, name, files):
    """Run stock PaddleX in a separate process, without network; return labels and scores per file."""
    result = subprocess.run(
        [sys.executable, "-c", PADDLEX, str(folder), name, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return [json.loads(line[6:]) for line in result.stdout.splitlines() if line.startswith("RESULT")]


def assert_paddlex_agrees(folder, name, files):
    ours = list(Predictor(folder, calibrated=False).predict(files, top_k=2))
    theirs = paddlex_predictions(folder, name, files)
    assert len(ours) == len(theirs) == len(files)
    for our, (labels, scores) in zip(ours, theirs):
        # PaddleX rounds to 5 digits; labels with equal scores may come in either order.
        ranked = dict(our.top)
        for label, score in zip(labels, scores):
            assert abs(ranked[label] - score) <= 1e-4, our.path
