"""The cache folder, chosen by the environment, and file hashes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import ROOT
from pplc_cli.base.storage.cache_dir import cache_folder, sha256_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and an environment that names no cache."""
    for name in ("PPLC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "home"


def test_default_is_in_the_home_folder(home: Path) -> None:
    assert cache_folder() == home / ".cache" / "pplc"


def test_xdg_cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "pplc"


@pytest.mark.parametrize("value", ["", "caches", "./caches", "~/caches"])
def test_relative_xdg_cache_home_is_ignored(home: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == home / ".cache" / "pplc"


def test_pplc_cache_comes_first(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("PPLC_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("PPLC_CACHE", "~/mine")
    assert cache_folder() == home / "mine"
    monkeypatch.setenv("PPLC_CACHE", "")
    assert cache_folder() == tmp_path / "caches" / "pplc"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_sha256_of_a_file(tmp_path: Path, size: int) -> None:
    content = bytes(size)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("chosen", ["", "~/mine"])
def test_no_home_folder(tmp_path: Path, chosen: str) -> None:
    """In a container with any user id: neither HOME nor the list of users names a home folder."""
    code = """
import os, pwd
from pplc_cli.base.errors import PplcError
from pplc_cli.base.storage.cache_dir import cache_folder
os.setuid(54321)
try:
    print(cache_folder())
except PplcError as error:
    print(error)
"""
    environment = {"PPLC_CACHE": chosen, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "this user has no home folder; set PPLC_CACHE" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())
