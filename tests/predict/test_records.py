"""The files of an export are checked against their records; damage is named, and replaced files get advice."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from pplc_cli.base.errors import PredictError
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.predict.records import SIDECAR, check_files, read_sidecar, record_files

NAMES = ["inference.json", "inference.pdiparams", "inference.yml"]


@pytest.fixture
def recorded(untrained, tmp_path):
    """A copy of an exported folder with records of its files."""
    folder = Path(shutil.copytree(untrained(0), tmp_path / "export"))
    (folder / SIDECAR).write_text(json.dumps({"files": record_files(folder)}), encoding="utf-8")
    return folder


def test_export_records_every_file(trained):
    folder = trained.run / "inference_model"
    assert read_sidecar(folder)["files"] == record_files(folder)
    assert set(record_files(folder)) == {f.name for f in folder.iterdir()} - {SIDECAR}
    check_files(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_found_and_the_file_named(recorded, name):
    read_exported(recorded)
    data = bytearray((recorded / name).read_bytes())
    for at in (0, len(data) // 2, len(data) - 1):
        (recorded / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(PredictError, match=rf"{name}: is damaged: .* if you replaced it on purpose, delete pplc"):
            read_exported(recorded)


def test_a_truncated_file_is_named_by_the_command(recorded, pplc):
    data = (recorded / "inference.pdiparams").read_bytes()
    (recorded / "inference.pdiparams").write_bytes(data[: len(data) // 2])
    done = pplc("predict", "--model", str(recorded), "nothing.jpg", check=False)
    assert done.returncode and "Traceback" not in done.stderr
    assert "inference.pdiparams: is damaged" in " ".join(done.stderr.split())


def test_files_replaced_on_purpose_open_without_the_records(recorded):
    (recorded / "inference.yml").write_bytes((recorded / "inference.yml").read_bytes() + b"\n# mine\n")
    with pytest.raises(PredictError):
        read_exported(recorded)
    (recorded / SIDECAR).unlink()
    assert read_exported(recorded).labels


def test_folders_without_records_and_files_deleted_or_added_later_open(recorded):
    (recorded / "inference.onnx").write_bytes(b"added")
    (recorded / SIDECAR).write_text(json.dumps({"files": {**record_files(recorded), "gone.onnx": {}}}), "utf-8")
    read_exported(recorded)
    (recorded / SIDECAR).write_text(json.dumps({"network": "PPLCNet_x0_25", "engines": {}}), encoding="utf-8")
    read_exported(recorded)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"files": 3}', b'{"files": {"inference.yml": 3}}']
)
def test_damaged_records_are_one_line(recorded, content):
    (recorded / SIDECAR).write_bytes(content)
    with pytest.raises(PredictError, match=r"pplc.json: is damaged") as caught:
        read_exported(recorded)
    assert "\n" not in str(caught.value)


def test_records_of_files_elsewhere_are_not_followed(recorded):
    (recorded / SIDECAR).write_text('{"files": {"../secret": {"size": 1}, "/etc/passwd": {"size": 1}}}', "utf-8")
    read_exported(recorded)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes in folders")
@pytest.mark.parametrize("name", [*NAMES, "inference.onnx", SIDECAR])
def test_pipes_devices_and_enormous_files_are_refused(untrained, tmp_path, name):
    def pipe(file: Path) -> None:
        os.mkfifo(file)

    def device(file: Path) -> None:
        file.symlink_to("/dev/zero")

    def enormous(file: Path) -> None:
        with file.open("wb") as opened:
            opened.truncate(10 << 30)

    for number, make in enumerate((pipe, device, enormous)):
        folder = Path(shutil.copytree(untrained(0), tmp_path / str(number)))
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with pytest.raises(PredictError, match=rf"{name}: .*(regular file|larger than)"):
            read_exported(folder)
