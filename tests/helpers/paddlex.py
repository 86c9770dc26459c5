"""PaddleX's own answers, to compare with."""

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
    print("ANSWER" + json.dumps([content["label_names"], [float(s) for s in content["scores"]]]))
"""


def paddlex_answers(folder, name, files):
    """What stock PaddleX answers, in a process of its own, never asking the network."""
    result = subprocess.run(
        [sys.executable, "-c", PADDLEX, str(folder), name, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True"},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return [json.loads(line[6:]) for line in result.stdout.splitlines() if line.startswith("ANSWER")]


def assert_paddlex_agrees(folder, name, files):
    ours = list(Predictor(folder).predict(files, top_k=2))
    theirs = paddlex_answers(folder, name, files)
    assert len(ours) == len(theirs) == len(files)
    for our, (labels, scores) in zip(ours, theirs):
        # PaddleX rounds to 5 digits; labels of a tie may stand in either order.
        ranked = dict(our.top)
        for label, score in zip(labels, scores):
            assert abs(ranked[label] - score) <= 1e-4, our.path
