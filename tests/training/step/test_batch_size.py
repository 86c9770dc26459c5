"""The batch size that pplc measures, the learning rate that follows it, and the memory that it predicts."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.commands import ROOT, Pplc
from helpers.runs import arrays, assert_same
from pplc_cli.base.errors import ConfigError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import TrainConfig
from pplc_cli.training.runs.run_folder import RunFolder
from pplc_cli.training.train import train
from pplc_cli.training.world import World

paddle = load_paddle()

from pplc_cli.training.step import batch_size  # noqa: E402


@given(
    optimizer=st.sampled_from(["momentum", "sgd", "adam", "adamw"]),
    rate=st.floats(1e-5, 1),
    batch=st.sampled_from(batch_size.SIZES),
)
def test_the_learning_rate_follows_the_batch(optimizer, rate, batch):
    """In proportion; with Adam, to the square root (Malladi et al., 2022)."""
    before = TrainConfig(batch_size="auto", optimizer=optimizer, learning_rate=rate)
    after = before.with_batch_size(batch)
    factor = np.sqrt(batch / 32) if optimizer.startswith("adam") else batch / 32
    assert after.batch_size == after.images_per_step == batch
    assert after.learning_rate == pytest.approx(rate * factor, rel=1e-5)  # it is written with six digits
    assert dataclasses.replace(after, batch_size="auto", learning_rate=rate) == before  # nothing else changes


@pytest.mark.parametrize("value", ["automatic", 0, 2.5, True, None])
def test_other_batch_sizes_are_refused(value):
    assert check_config({"data": {"dir": "d"}, "train": {"batch_size": "auto"}}).train.batch_size == "auto"
    with pytest.raises(ConfigError, match=r"train\.batch_size: expected "):
        check_config({"data": {"dir": "d"}, "train": {"batch_size": value}})


@settings(max_examples=20, deadline=None)
@given(
    channels=st.integers(1, 9), classes=st.integers(1, 9), height=st.integers(5, 20), width=st.integers(5, 20),
    training=st.booleans(),
)  # fmt: skip
def test_the_predicted_bytes_are_those_of_all_outputs_and_weights(channels, classes, height, width, training):
    nn = paddle.nn
    network = nn.Sequential(
        nn.Conv2D(3, channels, 3, stride=2, padding=1),
        nn.BatchNorm2D(channels),
        nn.Sequential(nn.Hardswish(), nn.Conv2D(channels, 4, 1, bias_attr=False)),
        nn.AdaptiveAvgPool2D(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    )
    network.train() if training else network.eval()
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    each, fixed = batch_size.step_bytes(network, (height, width))
    pixels = -(-height // 2) * -(-width // 2)
    # Convolution, batch norm and activation; the second convolution; pooling, flattening and the linear layer.
    outputs = 3 * channels * pixels + 4 * pixels + 4 + 4 + classes
    # Paddle counts the mean and the variance of batch norm as parameters, beside its scale and shift.
    weights = (27 * channels + channels) + 4 * channels + 4 * channels + (4 * classes + classes)
    assert each == outputs * 4 * 2  # float32; each output has a gradient
    assert fixed == weights * 4 * 4  # value, gradient, momentum, average
    assert network.training == training
    after = {key: value.numpy() for key, value in network.state_dict().items()}
    assert all(np.array_equal(before[key], after[key]) for key in before)


MEASURE = """
import json
from helpers.memory import peak_megabytes
from pplc_cli.base.paddle import load_paddle
paddle = load_paddle()
from pplc_cli.models.registry import build_network
from pplc_cli.training.step.batch_size import step_bytes

network = build_network("PPLCNet_x0_5", 10)
each, fixed = step_bytes(network, (224, 224))
network.train()
optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())

def step(batch):
    images, labels = paddle.randn([batch, 3, 224, 224]), paddle.zeros([batch], "int64")
    paddle.nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()
    optimizer.clear_grad()

step(1)  # what Paddle needs at any batch size, with the optimizer's state
before = peak_megabytes()
step(32)
print(json.dumps([each, peak_megabytes() - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_the_predicted_bytes_are_near_the_growth_of_a_real_step():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    each, growth = json.loads(done.stdout.splitlines()[-1])
    predicted = each * 31 / 2**20
    # What is kept depends on Paddle: it may fuse layers, work in place, or need buffers. Up to a factor of 3, a quarter
    # of the free memory (SHARE) is still less than all of it.
    assert predicted / 3 < growth < predicted * 3, (predicted, growth)


def choose(monkeypatch: pytest.MonkeyPatch, images: int, seconds: dict[int, float], memory: int, **recipe: Any) -> Any:
    """The configuration that is chosen where a step takes the given seconds per image, and the note on it."""
    asked: list[int] = []

    def measured(network: Any, batch: int, size: Any, classes: int) -> float:
        asked.append(batch)
        return seconds[batch]

    monkeypatch.setattr(batch_size, "_seconds_per_image", measured)
    monkeypatch.setattr(batch_size, "available_memory", lambda: memory)
    config = check_config(
        {
            "data": {"dir": "d"},
            "model": {"name": "PPLCNet_x0_25"},
            "train": {"batch_size": "auto", "learning_rate": 0.32, "accelerate": False, **recipe},
        }
    )
    notes: list[str] = []
    chosen = batch_size.choose_batch_size(config, images, 3, World(), None, notes.append)
    (note,) = notes
    return chosen.train, asked, note


SPEEDING_UP = {4: 0.4, 8: 0.3, 16: 0.2, 32: 0.199, 64: 0.215, 128: 0.1, 256: 0.1}


@pytest.mark.parametrize(
    ("images", "memory", "batch"),
    [
        (10**6, 2**40, 32),  # 64 takes 8 % longer per image; what comes after is not measured
        (639, 2**40, 16),  # 20 batches of 32 need 640 images
        (640, 2**40, 32),
        (5, 2**40, 4),  # the smallest one needs no 20 batches
        (10**6, 0, 4),  # and no memory
    ],
)
def test_the_choice_stops_where_batches_are_slower_too_few_or_too_large(monkeypatch, images, memory, batch):
    chosen, asked, note = choose(monkeypatch, images, SPEEDING_UP, memory)
    assert chosen.batch_size == batch and chosen.learning_rate == pytest.approx(0.32 * batch / 32)
    assert max(asked) == (64 if images == 10**6 and memory else batch)
    assert note.startswith(f"train.batch_size: {batch}, of 4") and f" becomes {chosen.learning_rate:g}" in note


def test_a_step_takes_a_quarter_of_the_free_memory(monkeypatch):
    network = batch_size.build_network("PPLCNet_x0_25", 3)
    each, fixed = batch_size.step_bytes(network, (224, 224))
    faster = {batch: 1 / batch for batch in batch_size.SIZES}
    for spare, batch in ((0, 64), (-1, 32)):
        chosen, asked, note = choose(monkeypatch, 10**6, faster, 4 * (fixed + 64 * each + spare))
        assert chosen.batch_size == batch == max(asked)
        assert f"about {(fixed + batch * each) / 1e6:.0f} MB" in note


@pytest.fixture
def args(pplc: Pplc, class_folders, recipe_args) -> list[str]:
    """A recipe on 168 training images: enough for 20 batches of 8."""
    folder = class_folders((120, 120))
    pplc("split", "--dataset", str(folder))
    return recipe_args(folder, epochs=1)


def test_a_run_records_its_number_and_resumes_with_it(pplc, args):
    auto = [*args, "-o", "train.batch_size=auto", "--output", "auto"]
    done = pplc("train", *auto)
    lines = [line for line in done.stderr.splitlines() if line.startswith("train.batch_size: ")]
    assert len(lines) == 1
    batch = int(lines[0].split(":")[1].split(",")[0])
    recorded = yaml.safe_load((pplc.cwd / "auto" / "config.yaml").read_text(encoding="utf-8"))["train"]
    assert batch in (4, 8) and recorded["batch_size"] == batch
    assert recorded["learning_rate"] == pytest.approx(0.02 * batch / 32)
    assert f"the learning rate of 0.02 for batches of 32 becomes {recorded['learning_rate']:g}" in lines[0]

    again = pplc("train", *auto, "--epochs", "2", "--resume")
    assert "resuming after epoch 1" in again.stderr and "train.batch_size: " not in again.stderr
    # The recorded numbers repeat the run without a measurement, to the bit.
    config = RunFolder(pplc.cwd / "auto").load_config()
    numbers = train(dataclasses.replace(config, output=str(pplc.cwd / "numbers"))).run
    for part in ("last", "best_model"):
        assert_same(arrays(pplc.cwd / "auto" / part), arrays(numbers.folder / part))
    assert [record["epoch"] for record in RunFolder(pplc.cwd / "auto").epochs()] == [1, 2]

    other = pplc("train", *auto, "--resume", "--learning-rate", "0.04", check=False)
    assert other.returncode == 1 and len(other.stderr.splitlines()) == 1
    assert f"train.learning_rate: {recorded['learning_rate']} then, {0.04 * batch / 32} now" in other.stderr


@pytest.mark.slow
def test_two_processes_agree_on_a_batch_size(pplc, args):
    done = pplc("train", *args, "-o", "train.batch_size=auto", "--output", "two", "--nproc", "2")
    lines = [line for line in done.stderr.splitlines() if line.startswith("train.batch_size: ")]
    recorded = yaml.safe_load((pplc.cwd / "two" / "config.yaml").read_text(encoding="utf-8"))["train"]
    assert len(lines) == 1 and lines[0].startswith(f"train.batch_size: {recorded['batch_size']},")
    assert recorded["learning_rate"] == pytest.approx(0.02 * recorded["batch_size"] / 32)
