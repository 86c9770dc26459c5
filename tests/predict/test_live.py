"""``pplc predict --camera`` and ``--watch``: what comes is answered, whole files only, until Ctrl-C."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import pytest

from helpers.commands import Pplc
from helpers.images import encoded_image, random_image, write_image
from pplc_cli.predict.inputs import live


def started(folder, *words):
    """A running command and the queue of its lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pplc_cli", "predict", *words], cwd=folder, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line.rstrip("\n"))

    threading.Thread(target=read, daemon=True).start()
    return process, lines


def interrupted(process):
    process.send_signal(signal.SIGINT)
    error = process.stderr.read()
    assert process.wait(60) == 0, error
    assert "Traceback" not in error
    return error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a process")
def test_files_are_answered_when_they_are_whole(trained, tmp_path):
    folder = tmp_path / "in 图"
    write_image(folder / "old.jpg", random_image(1))  # not new
    data = encoded_image(random_image(2), ".jpg")
    process, lines = started(tmp_path, "--run", str(trained.run), "--watch", "in 图", "--json")
    try:
        first = folder / "0.jpg"
        deadline = time.monotonic() + 60
        while lines.empty():  # until the command watches
            assert time.monotonic() < deadline and process.poll() is None
            first.write_bytes(encoded_image(random_image(int(time.monotonic_ns()) % 1000), ".jpg"))
            time.sleep(1.5)
        while not lines.empty():
            assert json.loads(lines.get())["path"].endswith("0.jpg")
        with (folder / "slow.jpg").open("wb") as slow:  # a quarter a second
            for start in range(0, len(data), len(data) // 4):
                slow.write(data[start : start + len(data) // 4])
                slow.flush()
                time.sleep(0.7)
        (folder / "sub").mkdir()
        (folder / "sub" / "b.part").write_bytes(data)
        (folder / "sub" / "b.part").rename(folder / "sub" / "b.jpg")
        (folder / "notes.txt").write_text("no image", encoding="utf-8")
        found = [json.loads(lines.get(timeout=30)) for _ in range(2)]
        assert sorted(Path(one["path"]).name for one in found) == ["b.jpg", "slow.jpg"]
        assert all(one.keys() >= {"label", "score"} for one in found)
        (folder / "broken.jpg").write_bytes(data[:200])
        began = time.monotonic()
        broken = json.loads(lines.get(timeout=60))
        assert broken["path"].endswith("broken.jpg") and "broken" in broken["error"]
        assert time.monotonic() - began > live.PATIENCE - 1
        assert lines.empty()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 1  # an image could not be used


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a process")
def test_ctrl_c_ends_watching_with_success(trained, tmp_path):
    (tmp_path / "in").mkdir()
    process, _ = started(tmp_path, "--run", str(trained.run), "--watch", "in")
    assert "Ctrl-C ends this" in process.stderr.readline()
    interrupted(process)


def test_a_camera_is_read_until_it_stops(trained, tmp_path):
    """OpenCV reads a video file as it reads a camera; its frames come faster than those of a camera."""
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(5):
        writer.write(random_image(number, (48, 64))[..., ::-1])
    writer.release()
    options = ["predict", "--run", str(trained.run), "--camera", str(file), "--every", "0.000001", "--json"]
    done = Pplc(tmp_path)(*options, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 5 and all(one["path"].startswith(f"camera {file}#t=") and one["label"] for one in found)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == f"Error: camera {file}: stopped after 5 frames"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--camera", "97"], "Error: camera 97: cannot be opened; expected its number, such as 0, or rtsp://..."),
        (["--watch", "nothing"], "Error: nothing: no such folder"),
        ([], "Error: expected an INPUT, --camera or --watch"),
        (["x.jpg", "--watch", "."], "Error: --camera, --watch and INPUT exclude each other; give one of them"),
        (["--camera", "0", "--watch", "."], "Error: --camera, --watch and INPUT exclude each other; give one of them"),
        (["--watch", ".", "--output", "x.csv"],
         "Error: --watch cannot be combined with --output or --on; use --json"),
    ],
)  # fmt: skip
def test_wrong_commands(trained, tmp_path, words, reason):
    failed = Pplc(tmp_path)("predict", "--run", str(trained.run), *words, check=False)
    assert failed.returncode != 0 and failed.stderr.strip().splitlines()[-1] == reason
