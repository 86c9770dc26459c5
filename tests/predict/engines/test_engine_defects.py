"""Defects that the engines' own users reported; pplc must not have them."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from helpers.exports import export_network, random_images
from pplc_cli.predict.engines.auto import choose_fastest
from pplc_cli.predict.engines.installed import installed
from pplc_cli.predict.engines.open import open_engine

SMALL = ["PPLCNet_x0_25", "PPLCNetV2_small", "FasterNet_T0", "MobileNetV3_small_x1_0",
         pytest.param("SqueezeNext_1_0_23v5", marks=pytest.mark.slow)]  # fmt: skip
ENGINES = ["paddle", "pplc", "onnxruntime", "openvino"]


def engine_of(folder, name, **options):
    reason = installed()[name]
    if reason is not None:
        pytest.skip(reason)
    return open_engine(folder, name, **options)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two classifiers of different networks."""
    folder = tmp_path_factory.mktemp("networks")
    return [export_network(name, folder / name) for name in ("PPLCNet_x0_25", "MobileNetV2_x1_0")]


@pytest.mark.parametrize("name", SMALL)
def test_onednn_runs_networks_in_the_new_format(name, tmp_path):
    """Paddle#77340: oneDNN failed on some networks."""
    folder = export_network(name, tmp_path)
    assert (folder / "inference.json").is_file()
    assert open_engine(folder, "paddle").run(random_images(2)).shape == (2, 10)


@pytest.mark.parametrize("name", ENGINES)
def test_several_classifiers_in_a_process_do_not_mix(networks, name):
    """Paddle#28459, #31111: oneDNN used the cached kernels of another network or of the previous image."""
    images = random_images(12)
    alone = [engine_of(folder, name).run(images) for folder in networks]
    engines = [engine_of(folder, name) for folder in networks]
    for i in range(12):
        for engine, expected in zip(engines, alone):
            np.testing.assert_allclose(engine.run(images[i : i + 1]), expected[i : i + 1], atol=1e-4)


@pytest.mark.parametrize("name", ENGINES)
def test_threads_on_one_engine_do_not_mix(networks, name):
    """Paddle#56524: a predictor shared by two threads mixed up their results."""
    engine, images = engine_of(networks[0], name), random_images(16)
    expected = [engine.run(images[i : i + 1]) for i in range(16)]
    wrong = []

    def run_in_turn(first: int) -> None:
        for turn in range(10):
            i = (first + turn) % 16
            if np.abs(engine.run(images[i : i + 1]) - expected[i]).max() > 1e-5:
                wrong.append(i)

    threads = [threading.Thread(target=run_in_turn, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


LEAK = """
import os, sys
import numpy as np
from pathlib import Path
from pplc_cli.predict.engines.open import open_engine

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

engine = open_engine(Path(sys.argv[1]), sys.argv[2], threads=1)
rng = np.random.default_rng(0)
images = rng.standard_normal((24, 3, 64, 64)).astype(np.float32)
sizes = [int(n) for n in rng.integers(1, 25, 400)]
for n in sizes[:100]:
    engine.run(images[:n])
before = resident()
for n in sizes[100:]:
    engine.run(images[:n])
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ENGINES)
def test_batches_of_many_sizes_do_not_fill_the_memory(networks, name):
    """Paddle#25506, #33021: the kernels of every new shape stayed in memory, several MB each.

    The first 100 runs include each of the 24 sizes. The next 300 must grow by less than a leak of 1 MB per run.
    """
    engine_of(networks[0], name)
    done = subprocess.run(
        [sys.executable, "-c", LEAK, str(networks[0]), name], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 60


@pytest.mark.slow
def test_an_engine_with_wrong_outputs_is_excluded(tmp_path, cache):
    """OpenVINO 2026.4.1 computes ShuffleNetV2's second stage wrongly on some CPUs; auto must exclude such an engine."""
    folder = export_network("ShuffleNetV2_x1_0", tmp_path / "network")
    expected, images = open_engine(folder, "paddle").run(random_images(4)), random_images(4)
    choice = choose_fastest(folder)
    right = np.abs(open_engine(folder, choice.engine).run(images) - expected).max()
    assert right < 1e-4
    for one in choice.measured:
        if one.reason is None:
            assert np.abs(open_engine(folder, one.engine).run(images) - expected).max() < 1e-3, one.engine
