"""Predictions do not mix between threads that share a predictor, networks in one process, and forked processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers.commands import ROOT
from helpers.images import random_image
from pplc_cli.base.processes import forks
from pplc_cli.kernels.team import ThreadTeam
from pplc_cli.predict.predictor import Predictor

ENGINES = ["pplc", "paddle", "onnxruntime"]


@pytest.fixture(scope="module")
def images():
    return [random_image(number) for number in range(90)]


def scores(predictions):
    """The scores of all five labels, sorted by label."""
    return np.array([[score for _, score in sorted(prediction.top)] for prediction in predictions])


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_may_share_a_predictor(untrained, images, engine):
    predictor = Predictor(untrained(0), engine=engine, batch_size=7)
    expected = scores(predictor.predict(images, top_k=5))
    assert np.abs(expected[1:] - expected[:-1]).max(1).min() > 1e-3  # so that a mix-up would show

    def predict_some(number):
        # Few images go to the engine with all threads, many to the workers.
        chosen = np.random.default_rng(number).permutation(len(images))[: 5 if number % 2 else 60]
        return np.abs(scores(predictor.predict([images[i] for i in chosen], top_k=5)) - expected[chosen]).max()

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(predict_some, range(32))) < 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_two_networks_in_one_process_do_not_mix(untrained, images, engine):
    predictors = [Predictor(untrained(seed), engine=engine) for seed in (0, 1)]
    expected = [scores(predictor.predict(images, top_k=5)) for predictor in predictors]
    assert np.abs(expected[0] - expected[1]).max() > 0.1

    def predict_some(number):
        which = number % 2
        return np.abs(scores(predictors[which].predict(images, top_k=5)) - expected[which]).max()

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(predict_some, range(12))) < 1e-4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_forked_processes_predict_whatever_the_threads_of_their_parent_do(untrained, count):
    command = [sys.executable, "-m", "helpers.forking", str(untrained(0)), "pplc", str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(count), "0", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("cycles", [10, 50])
def test_closed_predictors_leave_nothing_behind(untrained, images, cycles):
    def live():
        gc.collect()
        return len(forks._locks), sum(isinstance(each, ThreadTeam) for each in gc.get_objects())

    counts = []
    for _ in range(cycles):
        predictor = Predictor(untrained(0), engine="pplc", workers=2, batch_size=4)
        assert all(prediction.error is None for prediction in predictor.predict(images[:12]))
        del predictor
        counts.append(live())
    assert counts[-1] == counts[4]
