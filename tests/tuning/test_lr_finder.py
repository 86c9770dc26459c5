"""The range test: its average, its suggestion, its files, and that it leaves the folder free for a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.commands import Pplc
from helpers.folds import softmax
from pplc_cli.base.paddle import load_paddle
from pplc_cli.config.sections import Config
from pplc_cli.data.lists import read_labels, require_part
from pplc_cli.data.loading.loader import Loader
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.models.registry import build_network
from pplc_cli.training.progress import Reporter, TrainingStopped
from pplc_cli.tuning.lr_finder import STEPS, find_learning_rate, smooth, suggest

paddle = load_paddle()

Settings = Callable[..., Config]
losses_of = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=150)


@given(losses=losses_of)
def test_the_average_weighs_each_loss_by_its_age(losses):
    found = smooth(losses)
    assert found.dtype == np.float64 and found.shape == (len(losses),)
    for step in range(1, len(losses) + 1):
        weights = 0.9 ** np.arange(step - 1, -1, -1.0)
        expected = np.dot(weights, losses[:step]) / weights.sum()
        assert found[step - 1] == pytest.approx(expected, rel=1e-11)


RATES = np.geomspace(1e-5, 1, 51)  # ten steps a decade


@pytest.mark.parametrize(
    ("losses", "edge"),
    [
        (np.where(RATES < 0.02, 0.7, 0.7 * (RATES / 0.02) ** 2), 10**-1.7),  # flat, then rising
        (1 + (np.log10(RATES) + 2) ** 2, 10**-1.8),  # falling, then rising: less than 5 % above 1 up to 10^-1.78
        (1 / (1 + np.arange(51)), 1.0),  # falling to the end: the highest rate that was tried
        (np.where(np.arange(51) % 20 < 10, 1.0, 2.0), RATES[49]),  # a loss that rises and comes back has not risen yet
    ],
)
def test_the_suggestion_is_a_third_of_the_last_rate_with_a_low_loss(losses, edge):
    suggestion, found = suggest(RATES, np.asarray(losses))
    assert found == pytest.approx(edge, rel=1e-9)
    assert suggestion == float(f"{edge / 3:.1e}")


@given(losses=losses_of)
def test_behind_the_edge_all_losses_are_higher(losses):
    rates = np.geomspace(1e-5, 3, len(losses))
    suggestion, edge = suggest(rates, np.array(losses))
    place = rates.tolist().index(edge)
    assert losses[place] <= min(losses) * 1.05 < min(losses[place + 1 :], default=math.inf)
    assert suggestion == pytest.approx(edge / 3, rel=0.05)  # two digits


def first_loss(config: Config) -> float:
    """The loss of the first batch with the weights at the start, in float64."""
    labels = read_labels(config.data)
    loader = Loader(
        require_part(config.data, "train", labels),
        Pipeline(config.train.transforms, training=True),
        config.train.images_per_step,
        len(labels),
        shuffle=True,
        seed=config.train.seed,
    )
    batch = next(loader.epoch(1))
    paddle.seed(config.train.seed)
    network = build_network(config.model.name, len(labels), dropout=0.0)
    network.train()
    rows = softmax(network(paddle.to_tensor(batch.images)).numpy())
    return float(-np.log(rows[np.arange(len(rows)), batch.labels]).mean())


def test_the_command_measures_and_leaves_the_folder_to_a_run(pplc: Pplc, settings: Settings):
    config = settings("run", seed=3)
    (pplc.cwd / "own.yaml").write_text(yaml.safe_dump(config.to_dict(), allow_unicode=True), encoding="utf-8")
    done = pplc("train", "own.yaml", "--find-lr")
    run = pplc.cwd / "run"
    assert {path.name for path in run.iterdir()} == {"learning_rate.json", "learning_rate.png"}
    found = json.loads((run / "learning_rate.json").read_text(encoding="utf-8"))
    rates, losses = np.array(found["rates"]), np.array(found["losses"])
    assert f"learning rate: {found['suggestion']:g} for batches of 8," in done.stdout and found["batch_size"] == 8
    assert f"--learning-rate {found['suggestion']:g} --batch-size 8" in done.stdout
    assert 0 < len(losses) == len(rates) <= STEPS
    np.testing.assert_allclose(rates, np.geomspace(1e-5, 3, STEPS)[: len(rates)], rtol=1e-12)
    assert losses[0] == pytest.approx(first_loss(config), rel=1e-4)  # float32, through other kernels
    np.testing.assert_allclose(found["smoothed"], smooth(found["losses"]), rtol=1e-12)
    assert (found["suggestion"], found["edge"]) == suggest(rates, np.array(found["smoothed"]))
    with Image.open(run / "learning_rate.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10  # lines and text

    # The same seed, in another process, gives the same numbers.
    again = find_learning_rate(config)
    assert again.to_dict() == found
    trained = pplc("train", "own.yaml")
    assert "best epoch: " in trained.stdout and (run / "best_model").is_dir()
    assert json.loads((run / "learning_rate.json").read_text(encoding="utf-8")) == found


class StopAtStep(Reporter):
    """Stops a range test after some steps."""

    def __init__(self, last: int) -> None:
        self.last, self.seen = last, list[tuple[int, int, float, float]]()

    def range_test(self, step: int, steps: int, learning_rate: float, loss: float) -> None:
        self.seen.append((step, steps, learning_rate, loss))
        if step == self.last:
            self.stop()


def test_a_reporter_follows_and_stops_it_and_nothing_is_written(settings: Settings):
    config = settings("run", optimizer="adamw")
    reporter = StopAtStep(4)
    with pytest.raises(TrainingStopped):
        find_learning_rate(config, reporter=reporter)
    assert [step[:2] for step in reporter.seen] == [(number, STEPS) for number in range(1, 5)]
    rates = [step[2] for step in reporter.seen]
    np.testing.assert_allclose(rates, np.geomspace(1e-7, 0.3, STEPS)[:4], rtol=1e-12)  # Adam's rates are lower
    assert reporter.seen[0][3] == pytest.approx(first_loss(config), rel=1e-4)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("more", [["--folds", "2"], ["--nproc", "2"], ["--nnodes", "2", "--master", "127.0.0.1:1"]])
def test_what_cannot_be_combined_is_one_line(pplc: Pplc, settings: Settings, more):
    done = pplc("train", "--dataset", settings().data.dir, "--output", "run", "--find-lr", *more, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "--folds, --find-lr and several processes cannot be combined" in done.stderr
    assert not (pplc.cwd / "run").exists()
