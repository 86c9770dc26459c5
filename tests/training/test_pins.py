"""The files, keys and learning rates of each kind of run; and the same run writes the same bits again.

The figures themselves differ between CPUs. scripts/pin_runs.py compares them between two versions on one machine; its
runs and its records are used here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import pin_runs
from pin_recipes import RUNS, train

COMMON = {
    *("best_model/model.json", "best_model/model.safetensors", "config.yaml", "curves.png", "train_log.jsonl"),
    *("last/model.json", "last/model.safetensors", "last/optimizer.safetensors"),
}
EMA = {"last/ema.safetensors"}
EVALUATION = {f"eval_test/{n}" for n in ("confusion_matrix.csv", "confusion_matrix.png", "metrics.json", "mistakes.png",
                                         "reliability.png", "predictions.csv")}  # fmt: skip
EXPORT = {
    f"inference_model/{n}"
    for n in ("inference.json", "inference.pdiparams", "inference.yml", "pplc.json", "inference_confidence.safetensors")
}
TEACHER = {f"teacher/KEY/view-{view}.safetensors" for view in range(4)}
PROBED = {"auto", "auto_no_memory", "builtin", "head", "stages", "stages_adamw", "two_head", "visualdl"}
MORE = {  # files beside the common ones
    "ema": EMA | EVALUATION | EXPORT,
    "distilled": EMA | {"last/distill.safetensors", "teacher/KEY/view-0.safetensors", "teacher/KEY/view-1.safetensors"},
    "distilled_mixed": TEACHER,
    **dict.fromkeys(("ema_resumed", "progressive", "paddle_kernels", "frozen", "two", *PROBED), EMA),
    "visualdl": EMA | {"visualdl/vdlrecords.N.log"},
}
QUICK = ("plain", "frozen", "auto", "distilled")
TRAINED = [name for name, steps in RUNS.items() if steps[-1].status == 0 and steps[0].words[0] in ("train", "distill")]

STEP = ["event", "epoch", "epochs", "step", "steps", "loss", "top1", "learning_rate", "images_per_second",
        "seconds_left"]  # fmt: skip
EPOCH = ["event", "epoch", "epochs", "learning_rate", "train_loss", "train_top1", "images_per_second", "data_wait",
         "val_loss", "val_top1", "best", "seconds"]  # fmt: skip
PROBE = ["event", "epoch", "val_loss", "val_top1", "best"]
BEST = ["format", "pplc", "network", "dropout", "options", "labels", "transforms", "code", "epoch", "val_top1",
        "val_loss", "val_images"]  # fmt: skip
SECTIONS = ["data", "output", "split", "model", "train", "distill", "eval", "export", "predict", "tune"]

WARM = [0.005, 0.01, 0.015, 0.02]  # one epoch of four steps
PIECEWISE = [*WARM, *[0.02] * 8, *[0.002] * 4]  # a tenth after the third epoch
RATES = {
    **dict.fromkeys(("plain", "resumed", "ema", "frozen", "auto", "auto_no_memory", "two"), PIECEWISE),
    # Rising by fifths: with the unlabelled images an epoch has five steps.
    "distilled": [0.004, 0.008, 0.012, 0.016, 0.02, *[0.02] * 10, *[0.002] * 5],
    "adam": [0.0005, 0.001, 0.0015, *[0.002] * 13],
    "diverged": [1000, 1000, 1000],
    # 0.001 * (1 + cos(pi * n / 12)), n = 0 ... 11
    "adamw_cosine": [0.0005, 0.001, 0.0015, 0.002, 0.002, 0.0019659258262890683, 0.001866025403784439,
                     0.0017071067811865476, 0.0015, 0.0012588190451025207, 0.001, 0.0007411809548974793, 0.0005,
                     0.0002928932188134524, 0.0001339745962155613, 3.407417371093169e-05],
}  # fmt: skip


def marked(names, quick=QUICK):
    """Parameters; those that are not quick belong to the slow set."""
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """By its name, the folder of a run and its record; each run is made once, after the runs that it reads."""
    work, made = tmp_path_factory.mktemp("pins"), {}
    pin_runs.draw(work)

    def fill(name):
        for each in pin_runs.needed([name]):
            if each not in made:
                made[each], _ = pin_runs.fill(each, RUNS[each], work)
                assert made[each]["status"] == [step.status for step in RUNS[each]], each
        return work / name, made[name]

    return fill


def log_of(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", marked(TRAINED))
def test_the_files_of_a_run(filled, name):
    _, record = filled(name)
    files = {re.sub(r"^teacher/[0-9a-f]{16}/", "teacher/KEY/", file) for file in record["files"]}
    mistakes = {"eval_test/mistakes.png"} - files  # only where there are any
    assert files - {"../.pplc/latest_run"} == (COMMON | MORE.get(name, set())) - mistakes
    assert record["files"]["../.pplc/latest_run"] == [name, ""]


@pytest.mark.slow
def test_the_files_of_a_run_without_a_whole_epoch(filled):
    _, record = filled("diverged")
    assert record["files"].keys() - {"../.pplc/latest_run"} == {"config.yaml", "train_log.jsonl"}


@pytest.mark.parametrize("name", marked(TRAINED))
def test_the_records_of_the_log(filled, name):
    """One for the probe, one for each step, one for each epoch, with these keys in this order."""
    log = log_of(filled(name)[0])
    assert all(list(each) == {"probe": PROBE, "step": STEP, "epoch": EPOCH}[each["event"]] for each in log)
    events = [(each["event"], each["epoch"]) for each in log]
    assert (events[0] == ("probe", 0)) == (name in PROBED) and [event for event, _ in events].count("probe") <= 1
    epochs = [number for event, number in events if event == "epoch"]
    assert epochs == list(range(1, len(epochs) + 1)) and events[-1] == ("epoch", epochs[-1])
    for epoch in epochs if name != "stopped" else ():  # whose epochs are shorter than train.log_interval_steps
        steps = [(each["step"], each["steps"]) for each in log if each["event"] == "step" and each["epoch"] == epoch]
        assert steps == [(number, steps[0][1]) for number in range(1, steps[0][1] + 1)]


@pytest.mark.parametrize("name", marked(TRAINED))
def test_the_keys_beside_the_weights(filled, name):
    folder, _ = filled(name)
    best, last = (
        json.loads((folder / part / "model.json").read_text(encoding="utf-8")) for part in ("best_model", "last")
    )
    assert list(best) == [*BEST, "sha256"] and list(best["sha256"]) == ["model"]
    assert list(last) == [*BEST, "best", "stale_epochs", "fingerprint", "config", "sha256"]
    assert set(last["sha256"]) == {path.stem for path in (folder / "last").glob("*.safetensors")}
    assert last["best"] == {key: best[key] for key in ("epoch", "val_top1", "val_loss", "val_images")}
    whole = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert list(whole) == SECTIONS and list(last["config"]) == SECTIONS and whole["output"] == name


@pytest.mark.parametrize("name", marked(RATES))
def test_the_learning_rate_of_every_step(filled, name):
    """As documented: warm-up rises in equal steps; piecewise falls by a factor; cosine is half a wave."""
    log = log_of(filled(name)[0])
    rates = [each["learning_rate"] for each in log if each["event"] == "step"]
    exact = name != "adamw_cosine"  # a cosine's last bit is the C library's
    assert rates == (RATES[name] if exact else pytest.approx(RATES[name], rel=1e-14))
    for before, each in zip(log, log[1:]):
        assert each["event"] != "epoch" or each["learning_rate"] == before["learning_rate"]


@pytest.mark.parametrize(
    "name, trained",
    [
        ("auto", "head"),  # ten images of each class are few
        pytest.param("head", "head", marks=pytest.mark.slow),
        pytest.param("two_head", "head", marks=pytest.mark.slow),
        pytest.param("builtin", "head", marks=pytest.mark.slow),
        ("auto_no_memory", "stages"),  # there is no memory for the features of a frozen network
        pytest.param("stages", "stages", marks=pytest.mark.slow),
    ],
)
def test_the_transfer_that_was_chosen(filled, name, trained):
    """With head, the optimiser knows the classifier alone; the probe is in the log either way."""
    _, record = filled(name)
    states = {key.partition("/")[0] for key in record["files"]["last/optimizer.safetensors"]} - {"__metadata__"}
    assert (states == {"fc.weight", "fc.bias"}) == (trained == "head") and "fc.weight" in states
    assert record["files"]["train_log.jsonl"][0]["event"] == "probe"


@pytest.mark.slow
def test_auto_without_memory_is_the_same_as_stages(filled):
    """To the bit, also in the optimiser: nothing stays frozen."""
    chosen, stages = (filled(name)[1]["files"] for name in ("auto_no_memory", "stages"))
    for file in sorted(COMMON):
        if file.endswith(".safetensors"):
            assert chosen[file] == stages[file], file


def test_random_weights_are_trained_in_full(filled):
    """transfer: auto is then the same as full, to the bit."""
    chosen, full = (filled(name)[1]["files"] for name in ("auto_random", "plain"))
    for file in sorted(COMMON):
        if file.endswith((".safetensors", ".png", ".jsonl")):
            assert chosen[file] == full[file], file


def test_the_keys_of_a_report_and_an_export(filled):
    _, record = filled("ema")
    metrics, sidecar = (record["files"][file] for file in ("eval_test/metrics.json", "inference_model/pplc.json"))
    assert list(metrics) == ["source", "network", "epoch", "unusable", "images", "top1", "top1_interval", "top5",
                             "loss", "calibration_error", "macro", "classes", "confusion_matrix",
                             "calibration"]  # fmt: skip
    assert list(sidecar) == ["network", "weights", "difference", "images", "batch", "size", "simplified", "engines",
                             "measured_on", "confidence", "files"]  # fmt: skip
    assert record["files"]["eval_test/predictions.csv"][0] == "\ufeffpath,true,predicted,score,right,error"
    assert record["files"]["eval_test/confusion_matrix.csv"][0] == "\ufefftrue \\ predicted,ant,bee,猫 cat"
    text = "\n".join(record["files"]["inference_model/inference.yml"])
    assert list(yaml.safe_load(text)) == ["Global", "Hpi", "PreProcess", "PostProcess"]


@pytest.mark.parametrize("name", marked(["plain", "mixed", "frozen", "distilled", "two", "ema"], quick=["plain"]))
def test_the_same_run_writes_the_same_bits(filled, name, tmp_path):
    """In another folder, by other processes; with all that it starts from."""
    pin_runs.draw(tmp_path)
    for each in pin_runs.needed([name]):
        again, _ = pin_runs.fill(each, RUNS[each], tmp_path)
    assert list(pin_runs.differences(filled(name)[1], again)) == []


@pytest.mark.slow
def test_an_interrupted_run_ends_as_one_that_never_stopped(filled, tmp_path):
    """Every file: weights, log, configuration and curves."""
    _, record = filled("stopped")
    pin_runs.draw(tmp_path)
    pin_runs.fill("data", RUNS["data"], tmp_path)
    whole, _ = pin_runs.fill("stopped", [train("stopped", epochs=40, log_interval_steps=10)], tmp_path)
    assert list(pin_runs.differences(record["files"], whole["files"])) == []


def test_differences_are_found():
    one = {"a": [1.0, float("nan")], "b": {"c": "x"}, "d": [1]}
    assert list(pin_runs.differences(one, json.loads(json.dumps(one)))) == []
    other = {"a": [1.0 + 2**-52, float("nan")], "b": {}, "d": [1, 2]}
    assert list(pin_runs.differences(one, other)) == [
        "a[0]: 1.0 -> 1.0000000000000002",
        "b: c: only in the first",
        "d: 1 -> 2 entries",
    ]
