"""pplc bench: costs, lower bounds, and reports of engines that run and of engines that fail. No test judges times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import Pplc, Trained
from pplc_cli import read_image
from pplc_cli.base.errors import PredictError
from pplc_cli.base.hardware import facts
from pplc_cli.base.language.messages import use_language
from pplc_cli.base.paddle import load_paddle
from pplc_cli.benchmark.macs import count_params_and_macs
from pplc_cli.benchmark.roofline import (
    NetworkCost,
    PeakRates,
    exported_cost,
    graph_cost,
    highest,
    lower_bound,
    measure_rates,
)
from pplc_cli.benchmark.worker import BenchCase, Worker
from pplc_cli.data.synthetic import random_images
from pplc_cli.kernels import instruction_set
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.kernels.graph.simplify import simplify
from pplc_cli.models.registry import build_network
from pplc_cli.models.static import save_graph

SHORT = ("--rounds", "1", "--seconds", "0.05")


@pytest.fixture(scope="module")
def paddle():
    return load_paddle()


@pytest.mark.parametrize(
    ("name", "size"),
    [("PPLCNet_x0_25", 96), ("SqueezeNet1_1", 97), ("ShuffleNetV2_x1_0", 64), ("MobileNetV3_small_x1_0", 64)],
)
def test_costs_of_the_exported_graph_are_those_of_the_layers(paddle, tmp_path: Path, name: str, size: int) -> None:
    network = build_network(name, 10)
    network.eval()
    save_graph(paddle, network, (size, size), tmp_path)
    found = exported_cost(tmp_path, (size, size))
    assert found is not None
    params, macs = count_params_and_macs(network, "trainable", (size, size))
    assert found.macs == macs
    # Batch norm is folded into the convolutions: its scale is gone, its shift is their bias.
    assert 0.9 * 4 * params <= found.weights <= 4 * params
    assert found.activations > 4 * 3 * size * size


def test_cost_by_hand(paddle, tmp_path: Path) -> None:
    nn = paddle.nn
    network = nn.Sequential(
        nn.Conv2D(3, 8, 3, 2, 1, bias_attr=False), nn.BatchNorm2D(8), nn.Hardswish(),
        nn.MaxPool2D(3, 2, ceil_mode=True), nn.Conv2D(8, 8, 3, padding=1, groups=8), nn.AdaptiveAvgPool2D(1),
        nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    network.eval()
    save_graph(paddle, network, (10, 12), tmp_path)
    found = graph_cost(simplify(read_paddle(tmp_path)), (10, 12))
    first, pooled = 8 * 5 * 6, 8 * 2 * 3
    moved = (3 * 10 * 12 + first) + (first + pooled) + 2 * pooled + (pooled + 8) + (8 + 5)
    weights = (8 * 27 + 8) + (8 * 9 + 8) + (8 * 5 + 5)
    assert found == NetworkCost(macs=first * 27 + pooled * 9 + 8 * 5, weights=4 * weights, activations=4 * moved)


def test_lower_bound_by_hand() -> None:
    cost = NetworkCost(macs=150_000_000, weights=12_000_000, activations=2_000_000)
    bound = lower_bound("m", cost, PeakRates(2, 200.0, 20.0), 4)
    assert bound.compute == pytest.approx(6.0)  # 1.2 G operations at 200 per nanosecond
    assert bound.memory == pytest.approx(1.0)  # 20 MB at 20 GB/s


def test_a_folder_without_paddles_format_has_no_cost(tmp_path: Path) -> None:
    assert exported_cost(tmp_path, (32, 32)) is None


def test_the_machine() -> None:
    found = facts()
    assert found["cpu"] and found["cores"] >= 1 and found["versions"]["paddlepaddle"]
    assert all(size > 0 for size in found["caches"].values())
    rates = measure_rates(1)
    assert rates.threads == 1 and rates.gflops > 0 and rates.gigabytes > 0
    assert highest([PeakRates(1, 5.0, 2.0), PeakRates(1, 3.0, 4.0)]) == PeakRates(1, 5.0, 4.0)


def test_images_are_the_same_each_time() -> None:
    assert np.array_equal(random_images(3, (40, 33)), random_images(3, (40, 33)))
    assert random_images(2, (40, 33)).shape == (2, 3, 40, 33) and random_images(1, (8, 8)).dtype == np.float32


def bench(pplc: Pplc, *arguments: str) -> dict:
    return json.loads(pplc("bench", *arguments, *SHORT, "--json").stdout)


def test_a_run_by_several_engines(trained: Trained, tmp_path: Path) -> None:
    pplc = Pplc(trained.folder)
    image = tmp_path / "a chart.png"
    engines = ("--engine", "paddle", "--engine", "onnxruntime")
    found = bench(pplc, *engines, "--threads", "1", "--batch-size", "1", "--batch-size", "3", "--output", str(image))
    assert found["machine"]["instruction_set"] == instruction_set()
    assert found["machine"]["cpu"] and (found["rounds"], found["seconds"]) == (1, 0.05)
    assert [rate["threads"] for rate in found["rates"]] == [1]
    assert found["measured"] and not any(each["engine"] == "paddle" for each in found["failed"])
    for each in found["measured"]:
        assert trained.folder / each["model"] == trained.run and each["batch"] in (1, 3) and each["threads"] == 1
        assert 0 < each["p50"] <= each["p90"] and (each["p99"] is None or each["p99"] >= each["p90"])
        assert (each["p99"] is None) == (each["runs"] < 100) and each["runs"] >= 2
        assert each["images_per_second"] > 0 and each["cold_start"] > each["p50"] / 1e3
        assert each["difference"] < 1e-4
    assert {(each["engine"], each["batch"]) for each in found["measured"]} >= {("paddle", 1), ("paddle", 3)}
    assert [
        (bound["batch"], bound["cost"]["macs"] > 0, bound["compute"] > 0, bound["memory"] > 0)
        for bound in found["floors"]
    ] == [
        (1, True, True, True),
        (3, True, True, True),
    ]
    drawn = read_image(image)
    assert drawn.std() > 10 and drawn.shape[1] > 800


def test_the_table(trained: Trained) -> None:
    shown = Pplc(trained.folder)("bench", str(trained.run / "inference_model"), "--engine", "paddle", *SHORT).stdout
    for text in ("p50 ms", "paddle", "GFLOP/s", "Fastest possible", "by arithmetic", "paddlepaddle 3."):
        assert text in shown


@pytest.mark.slow
def test_a_network_of_the_zoo(pplc: Pplc) -> None:
    found = bench(pplc, "PPLCNet_x0_25", "--engine", "paddle", "--batch-size", "1")
    assert {each["model"] for each in found["measured"]} == {"PPLCNet_x0_25"}


def test_an_engine_that_fails_does_not_hide_the_others(trained: Trained, tmp_path: Path) -> None:
    """Of two models, the second lacks a file: the report gives the reason, and the first one is measured."""
    broken = tmp_path / "broken"
    shutil.copytree(trained.run / "inference_model", broken)
    (broken / "inference.json").unlink()
    good = str(trained.run / "inference_model")
    found = bench(Pplc(tmp_path), good, str(broken), "--engine", "paddle", "--batch-size", "1")
    assert [each["model"] for each in found["measured"]] == [good]
    (failed,) = found["failed"]
    assert failed["model"] == str(broken) and failed["engine"] == "paddle" and "inference.json" in failed["reason"]
    assert [bound["model"] for bound in found["floors"]] == [good]


def test_a_worker_reports_why_it_ended(trained: Trained, tmp_path: Path) -> None:
    case = BenchCase("m", str(trained.run / "inference_model"), "paddle", "float32", 1, (32, 32))
    worker = Worker(case)
    assert worker.scores.shape == (2,) and worker.scores.sum() == pytest.approx(1, abs=1e-5)
    assert len(worker.run(2, 0.01)) >= 2
    worker._process.kill()
    with pytest.raises(PredictError, match="ended with status -9"):
        worker.run(2, 0.01)
    worker.close()
    with pytest.raises(PredictError, match="inference"):
        Worker(BenchCase("m", str(tmp_path), "paddle", "float32", 1, (32, 32)))


def test_a_worker_speaks_the_language_of_its_parent(tmp_path: Path) -> None:
    use_language("zh")
    try:
        with pytest.raises(PredictError, match=r"[\u4e00-\u9fff]"):
            Worker(BenchCase("m", str(tmp_path), "paddle", "float32", 1, (32, 32)))
    finally:
        use_language("en")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing/here"], "exported folder or a run"),
        (["PPLCNet_x0_26"], "PPLCNet_x0_25"),
        (["."], "no trained run"),
        ([], "no run here yet"),
        (["PPLCNet_x0_25", "--engine", "onnxruntim"], "onnxruntime"),
        (["PPLCNet_x0_25", "--precision", "int4"], "int8"),
        (["PPLCNet_x0_25", "--threads", "0"], "x>=1"),
        (["PPLCNet_x0_25", "--seconds", "0"], "0<x"),
    ],
)
def test_user_errors_are_one_line(pplc: Pplc, arguments: list[str], reason: str) -> None:
    done = pplc("bench", *arguments, check=False)
    assert done.returncode != 0 and reason in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("Error: ")
