"""Predictions of many images in files: formats, interrupted runs that resume, locks, counts, Ray."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.images import random_image, write_image
from pplc_cli.base.errors import PplcError
from pplc_cli.predict.inputs.count import count
from pplc_cli.predict.inputs.expand import expand
from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.outputs.base import OutputSchema
from pplc_cli.predict.outputs.resumable import ResumableOutput
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor

FORMATS = ["jsonl", "csv", "parquet"]


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    """40 images and two broken ones; some names need escapes in files."""
    folder = tmp_path_factory.mktemp("图 片")
    names = [f"{i:02d}.jpg" for i in range(37)] + ['a "b", c.png', "line\nbreak.png", "猫.jpg"]
    for number, name in enumerate(names):
        write_image(folder / name, random_image(number))
    (folder / "07 broken.jpg").write_bytes((folder / "07.jpg").read_bytes()[:300])
    (folder / "text.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def predictor(untrained):
    return Predictor(untrained(0), engine="pplc", workers=2)


@pytest.fixture(scope="module")
def image_list(image_folder, tmp_path_factory):
    """A list with the folder's files 75 times, without the name that contains a line end."""
    names = sorted(str(p) for p in image_folder.iterdir() if "\n" not in p.name)
    path = tmp_path_factory.mktemp("lists") / "many.txt"
    path.write_text("\n".join(names * 75), encoding="utf-8")
    return str(path)


TWO = OutputSchema(2)


def record(predictor, path, argument, schema=TWO, **how):
    """Run a whole prediction in this process."""
    output = ResumableOutput(path, predictor, schema, **how)
    predictions = predictor.predict(output.remaining(expand([argument])), top_k=schema.top_k, many=True)
    return list(output.record(predictions))


def content(path):
    """The content that must not depend on interruptions: the rows of Parquet, the bytes of other files."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    import pyarrow.parquet as pq

    return pq.read_table(path)


def command(model, *arguments):
    program = [sys.executable, "-m", "pplc_cli", "predict", "--model", str(model)]
    return [*program, "--engine", "pplc", "--workers", "2", "--top-k", "2", *map(str, arguments)]


def killed_after_progress(line, out):
    """Start a process, and kill it once its file or its parts have grown; False if it ended before."""
    parts = out.with_name(f"{out.name}.parts")

    def size():
        return sum(f.stat().st_size for f in (out, *parts.glob("*.parquet")) if f.exists())

    before = size()
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    while process.poll() is None and size() <= before:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "suffix", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow), pytest.param("csv", marks=pytest.mark.slow)]
)
def test_a_killed_run_resumes_to_the_same_file(suffix, untrained, predictor, image_list, tmp_path):
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert len(record(predictor, whole, image_list)) == 41 * 75
    line = command(untrained(0), image_list, "--output", out, "--resume")
    kills = 0
    while kills < 3 and killed_after_progress(line, out):
        kills += 1
    assert kills, "no process was killed before its end"
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 1 and "150 failed" in done.stderr, done.stderr
    assert content(out) == content(whole)
    again = subprocess.run(line, capture_output=True, text=True)
    assert "0 images (3,075 of them before)" in again.stderr and content(out) == content(whole)
    left = sorted(p.name for p in tmp_path.iterdir() if "whole" not in p.name)
    assert left == [f"out.{suffix}", f"out.{suffix}.state.json"]


odd = st.sampled_from("\r\n\",=+-@\t'\udcff\0")  # characters that tables and formats treat in ways of their own
names = st.lists(st.text(st.characters() | odd, max_size=8), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["jsonl", "csv"]), names, st.integers(0, 999), st.binary(max_size=4))
def test_a_torn_file_resumes_to_the_same_bytes(predictor, tmp_path, suffix, paths, cut, rubbish):
    out = tmp_path / f"torn.{suffix}"

    def run(**how):
        output = ResumableOutput(out, predictor, OutputSchema(2), **how)
        sources = output.remaining(Source(path) for path in paths)
        predictions = [Prediction(s.name, [("=猫\r\n\udcff", 0.75), ("dog", 0.25)]) for s in sources]
        predictions = [p if len(p.path) % 3 else Prediction(p.path, error='is "broken"') for p in predictions]
        return list(output.record(predictions))

    run(force=True)
    whole = out.read_bytes()
    kept = whole[: min(cut, len(whole))]
    out.write_bytes(kept + rubbish.replace(b"\n", b"") if len(kept) < len(whole) else kept)
    run(resume=True)
    assert out.read_bytes() == whole


KILLED = """
import os, signal, sys
from pplc_cli.predict.outputs import resumable
resumable.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from pplc_cli.cli.main import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_run_killed_before_it_wrote_its_state_is_begun_again(suffix, untrained, predictor, image_folder, tmp_path):
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    record(predictor, whole, str(image_folder))
    line = command(untrained(0), image_folder, "--output", out)
    killed = [sys.executable, "-c", KILLED, *line[3:]]
    assert subprocess.run(killed, capture_output=True).returncode == -signal.SIGKILL
    done = subprocess.run([*line, "--resume"], capture_output=True, text=True)
    assert done.returncode == 1 and "2 failed" in done.stderr and "Error" not in done.stderr
    assert ("has no predictions yet; it is begun again" in done.stderr) == (suffix != "parquet")
    assert content(out) == content(whole)
    # Killed while it replaces predictions: no state is left that would pass off the old ones as its own.
    assert subprocess.run([*killed, "--force"], capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / f"out.{suffix}.state.json").exists()
    subprocess.run([*line, "--resume"], capture_output=True)
    assert content(out) == content(whole)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


@pytest.mark.parametrize("suffix", FORMATS)
def test_odd_names_and_labels_read_back(suffix, predictor, tmp_path):
    odd = ["=1+1", "cr\r.jpg", "lf\n.jpg", "tab\t.jpg", 'a "b", c', "猫\u202e.jpg", "-1"]
    found = [Prediction(name, [(name, 0.5), ("\udcff\0", 0.25)]) for name in odd]
    output = ResumableOutput(tmp_path / f"out.{suffix}", predictor, TWO)
    list(output.remaining([]))
    assert list(output.record(found)) == found
    again = ResumableOutput(tmp_path / f"out.{suffix}", predictor, TWO, resume=True)
    assert not list(again.remaining(Source(name) for name in odd)) and again.done == len(odd)
    list(again.record([]))
    rows = read_rows(tmp_path / f"out.{suffix}")
    expected = [f"'{name}" if suffix == "csv" and name[0] in "=-" else name for name in odd]
    assert [row["path"] for row in rows] == [row["label"] for row in rows] == expected
    assert {row["label_2"] for row in rows} == {"\udcff\0" if suffix == "jsonl" else "\\udcff\\x00"}


def test_other_models_inputs_and_options_are_refused(untrained, predictor, image_folder, tmp_path):
    out = tmp_path / "out.csv"
    before = record(predictor, out, str(image_folder))
    held = out.read_bytes()

    def refused(message, argument=image_folder, model=predictor, schema=TWO, **how):
        with pytest.raises(PplcError, match=message) as caught:
            record(model, out, str(argument), schema, **how)
        assert "\n" not in str(caught.value) and out.read_bytes() == held

    refused("already exists; --resume")
    refused("top_k 2, not 1", schema=OutputSchema(1), resume=True)
    refused("another model", model=Predictor(untrained(1), engine="pplc"), resume=True)
    refused("engine pplc, not paddle", model=Predictor(untrained(0), engine="paddle"), resume=True)
    (tmp_path / "fewer").mkdir()
    (tmp_path / "fewer" / "00.jpg").write_bytes((image_folder / "00.jpg").read_bytes())
    refused("prediction 1 is of .*00.jpg", argument=tmp_path / "fewer", resume=True)
    refused("has no more images", argument=image_folder / "00.jpg", resume=True)
    state = tmp_path / "out.csv.state.json"
    kept = state.read_bytes()
    state.write_text("{")
    refused("state.json is damaged", resume=True)
    state.unlink()
    refused("cannot be resumed: out.csv.state.json is missing", resume=True)
    state.write_bytes(kept)
    assert record(predictor, out, str(image_folder), force=True) == before


@pytest.mark.parametrize("suffix", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow)])
def test_a_second_process_cannot_write_the_same_file(suffix, untrained, predictor, image_folder, tmp_path):
    out = tmp_path / f"out.{suffix}"
    output = ResumableOutput(out, predictor, TWO)
    predictions = output.record(predictor.predict(output.remaining(expand([str(image_folder)])), top_k=2, many=True))
    next(predictions)
    line = command(untrained(0), image_folder, "--output", out)
    for option in ("--resume", "--force"):
        refused = subprocess.run([*line, option], capture_output=True, text=True)
        assert refused.returncode == 1 and refused.stderr.splitlines()[-1].startswith("Error: ")
        assert f"{out}: another process is writing it" in refused.stderr and "Traceback" not in refused.stderr
    assert len(list(predictions)) == 41
    assert len(read_rows(out)) == 42
    after = subprocess.run([*line, "--resume"], capture_output=True, text=True)
    assert "0 images (42 of them before)" in after.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, f"{out.name}.state.json"]


def test_a_full_disk_is_one_line_and_loses_nothing(untrained, predictor, image_list, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    record(predictor, whole, image_list)

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    line = command(untrained(0), image_list, "--output", out)
    full = subprocess.run(line, capture_output=True, text=True, preexec_fn=small_disk)
    message = full.stderr.splitlines()[-1]
    assert full.returncode == 1 and "Traceback" not in full.stderr and "join" not in full.stderr
    assert message.startswith("Error: cannot write ") and "--resume" in message
    assert 50_000 < out.stat().st_size <= 100_000
    subprocess.run([*line, "--resume"], capture_output=True)
    assert out.read_bytes() == whole.read_bytes()


EXITS = """
import sys
from pplc_cli import Predictor
model, image, engine = sys.argv[1:]
predictions = Predictor(model, engine=engine).predict([image] * 10_000, many=True)
print(next(predictions).label)
"""


@pytest.mark.parametrize("engine", ["pplc", "paddle"])
def test_a_program_may_exit_before_the_last_prediction(untrained, image_folder, engine):
    """A thread that is inside C++ when the interpreter stops aborts the process, in about half of the runs."""
    line = [sys.executable, "-c", EXITS, str(untrained(0)), str(image_folder / "00.jpg"), engine]
    for _ in range(3):
        left = subprocess.run(line, capture_output=True, text=True)
        assert (left.returncode, left.stderr) == (0, "") and left.stdout


def test_ctrl_c_keeps_the_predictions(untrained, predictor, image_list, tmp_path):
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen(command(untrained(0), image_list, "--output", out), stderr=subprocess.PIPE, text=True)
    while not (out.exists() and out.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("Interrupted. Repeat the command with --resume")
    assert out.read_bytes().endswith(b"\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.state.json"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_hold_the_same_values(suffix, predictor, image_folder, tmp_path):
    predictions = record(predictor, tmp_path / f"out.{suffix}", str(image_folder))
    rows = read_rows(tmp_path / f"out.{suffix}")
    assert [row["path"] for row in rows] == [p.path for p in predictions] and len(rows) == 42
    for prediction, row in zip(predictions, rows):
        assert row["error"] == prediction.error
        if prediction.error is None:
            assert [row["label"], row["label_2"]] == [label for label, _ in prediction.top]
            assert np.allclose([row["score"], row["score_2"]], [score for _, score in prediction.top], atol=6e-7)
    assert sum(row["error"] is not None for row in rows) == 2


def read_rows(path):
    if path.suffix == ".parquet":
        return content(path).to_pylist()
    if path.suffix == ".csv":
        import csv

        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]
        return [{k: float(v) if v and k.startswith("score") else v for k, v in row.items()} for row in rows]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    flat = [{"path": row["path"], "error": row.get("error")} for row in rows]
    for row, one in zip(flat, rows):
        for suffix, best in zip(("", "_2"), one.get("top", ())):
            row.update({f"label{suffix}": best["label"], f"score{suffix}": best["score"]})
    return flat


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_embeddings_are_written_exactly(suffix, untrained, image_folder, tmp_path):
    embedder = Predictor(untrained(0), engine="pplc", features=True)
    schema = OutputSchema.of(embedder, 1)
    predictions = record(embedder, tmp_path / f"out.{suffix}", str(image_folder), schema)
    path = tmp_path / f"out.{suffix}"
    rows = content(path).to_pylist() if suffix == "parquet" else map(json.loads, path.read_text("utf-8").splitlines())
    vectors = [row.get("embedding") for row in rows]
    assert schema.embedding == 1280 and sum(v is None for v in vectors) == 2
    for prediction, vector in zip(predictions, vectors):
        if prediction.embedding is not None:
            assert (
                prediction.embedding.dtype == np.float32
                and (np.array(vector, np.float32) == prediction.embedding).all()
            )
    with pytest.raises(PplcError, match="CSV has no place"):
        ResumableOutput(tmp_path / "out.csv", embedder, schema)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume and --force need --output"),
        (["--output", "x.jsonl", "--csv"], "leave out --json and --csv"),
        (["--output", "x.jsonl", "--resume", "--force"], "one of them"),
        (["--output", "x.txt"], "expected a file of .jsonl"),
        (["--embeddings", "--csv"], "--embeddings cannot be combined"),
        (["--on", "ray"], "--on needs --output"),
        (["--engine", "padle"], "did you mean paddle"),
    ],
)
def test_contradicting_options_are_one_line(pplc, untrained, image_folder, options, message):
    done = pplc("predict", "--model", str(untrained(0)), str(image_folder / "00.jpg"), *options, check=False)
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
    assert not list(pplc.cwd.iterdir())


def test_a_wrong_argument_does_not_overwrite_an_old_file(pplc, untrained):
    (pplc.cwd / "out.csv").write_text("years of work")
    (pplc.cwd / "empty").mkdir()
    done = pplc("predict", "--model", str(untrained(0)), "empty", "--output", "out.csv", "--force", check=False)
    assert "holds no images" in done.stderr and (pplc.cwd / "out.csv").read_text() == "years of work"


def test_images_are_counted_for_the_progress_bar(image_list, image_folder):
    stop = threading.Event()
    assert count([image_list, str(image_folder), "http://nowhere/x.jpg"], stop) == 41 * 75 + 42 + 1
    assert count(["clip.mp4", image_list], stop) is None
    stop.set()
    assert count([image_list], stop) is None


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_ray_gives_the_same_predictions(suffix, untrained, predictor, image_folder, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'pplc[ray]'")
    out = tmp_path / f"out.{suffix}"
    line = command(untrained(0), *[str(image_folder)] * 8, "--output", out, "--on", "ray")
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    rows = [json.loads(line) for f in out.glob("*.json") for line in f.read_text("utf-8").splitlines()]
    rows += [row for f in out.glob("*.csv") for row in read_rows(f)]
    rows += [row for f in out.glob("*.parquet") for row in read_rows(f)]
    ours = list(predictor.predict([str(p) for p in sorted(image_folder.iterdir())] * 8, top_k=2, many=True))
    assert sorted((r["path"], r["label"] or "") for r in rows) == sorted((a.path, a.label or "") for a in ours)
    assert os.environ.get("RAY_ADDRESS") is None
    assert "already exists" in subprocess.run(line, capture_output=True, text=True, cwd=tmp_path).stderr


def test_outputs_make_folders_with_chinese_names(predictor, image_folder, tmp_path):
    out = Path(tmp_path / "新 folder" / "答案.jsonl")
    assert record(predictor, out, str(image_folder / "猫.jpg"))[0].path.endswith("猫.jpg")
    assert "猫.jpg" in out.read_text(encoding="utf-8")


def test_the_default_engine(untrained, tmp_path):
    from pplc_cli.predict.engines.choose import default_engine
    from pplc_cli.predict.engines.pplc import ready

    folder = untrained(0)
    assert default_engine(folder, "float32", False) == "paddle"  # no export has checked pplc
    assert default_engine(folder, "float32", True) == "pplc"
    for files, expected in ((["inference.onnx"], "onnxruntime"), (["inference.xml"], "openvino"), ([], "paddle")):
        place = tmp_path / expected
        place.mkdir()
        for name in files:
            (place / name).touch()
        assert default_engine(place, "float32", False) == expected
    (place / "inference.json").touch()
    checked = {"engines": {"pplc": {"float32": {}}, "openvino": {"int8": {}}}}
    (place / "pplc.json").write_text(json.dumps(checked), encoding="utf-8")
    assert default_engine(place, "float32", False) == ("pplc" if ready() else "paddle")
    assert default_engine(place, "bfloat16", False) == "paddle"
    assert default_engine(place, "int8", False) == "openvino"


def test_a_terminal_shows_rate_and_time_left(untrained, image_list, tmp_path):
    import pty

    ours, theirs = pty.openpty()
    line = command(untrained(0), image_list, "--output", tmp_path / "out.jsonl")
    process = subprocess.Popen(line, stderr=theirs, env={**os.environ, "COLUMNS": "120", "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # the process has closed its end
        pass
    process.wait()
    assert b"/3075" in shown and b"images/s" in shown and b"could not be used; the output file lists them" in shown
