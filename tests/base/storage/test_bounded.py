"""Whole files are read only if they are regular and small enough."""

from __future__ import annotations

import os
import sys

import pytest

from pplc_cli.base.storage.bounded import read_bounded


def test_a_file_up_to_the_limit_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"


def test_a_larger_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="is larger than 1000 bytes"):
        read_bounded(tmp_path / "sparse", 1000)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes in folders")
def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(OSError, match="expected a regular file"):
            read_bounded(tmp_path / name, 1000)


def test_other_errors_are_those_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 1000)
    with pytest.raises(OSError):
        read_bounded(tmp_path, 1000)
