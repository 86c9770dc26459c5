"""List and verify cached weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.cached_weights import NAME, SPEC, WEIGHTS, digits
from pplc_cli.base.errors import ModelError
from pplc_cli.models.weights.builtin import builtin_names
from pplc_cli.models.weights.inventory import inventory, verify
from pplc_cli.models.weights.manifest import Cache, Entry
from pplc_cli.models.weights.official import fetch_official
from pplc_cli.models.weights.packaged import PACKAGED, find_packaged
from pplc_cli.models.weights.pretrained import load_pretrained


def record_import(cache: Path) -> Path:
    path = cache / "imported" / "mine.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"fc.weight": np.zeros((2, 2), np.float32)}, path)
    Cache().record("imported/mine.safetensors", Entry.of(path, "/from/mine.onnx", "PPLCNet_x1_0", "imported"))
    return path


def test_list(mirror, cache, pplc):
    fetch_official(SPEC, "imagenet")
    record_import(cache)
    rows = json.loads(pplc("weights", "list", "--json").stdout)
    assert [row["file"] for row in rows if row["source"] == "builtin"] == [f"{n}.safetensors" for n in builtin_names()]
    assert rows[len(builtin_names()) + len(PACKAGED)] == {
        "network": "PPLCNet_x0_25",
        "source": "imagenet",
        "file": NAME,
        "url": SPEC.weights["imagenet"],
        "size": len(WEIGHTS),
        "cached": True,
        "sha256": digits(WEIGHTS),
        "package": None,
    }
    assert [row["file"] for row in rows if row["cached"]] == [NAME, "imported/mine.safetensors"]
    table = pplc("weights", "list").stdout
    line = next(line for line in table.splitlines() if NAME in line)
    assert "PPLCNet_x0_25 " in line and " in the cache " in line and f" {len(WEIGHTS) / 1e6:.1f} " in line
    assert f"2 files in {cache}" in table


def test_list_names_every_source_once():
    rows = [(row.network, row.source) for row in inventory()]
    assert ("PPLCNet_x1_0", "imagenet") in rows and ("PPLCNet_x1_0", "imagenet_ssld") in rows
    assert len({row.file for row in inventory()}) == len(rows) == len(set(rows))


def test_verify(mirror, cache, pplc):
    installed = sum(find_packaged(name) is not None for name in PACKAGED)
    assert f"{installed} files" in pplc("weights", "verify").stdout
    fetch_official(SPEC, "imagenet")
    imported = record_import(cache)
    (cache / "resnet18.pdparams").write_bytes(WEIGHTS)
    lines = pplc("weights", "verify").stdout.splitlines()
    assert lines[:3] == [f"ok: {NAME}", "not recorded yet: resnet18.pdparams", "ok: imported/mine.safetensors"]
    assert "none damaged or missing" in lines[3 + installed]
    with (cache / NAME).open("ab") as file:
        file.write(b"x")
    imported.unlink()
    assert [found.state for found in verify()][:3] == ["damaged", "not recorded yet", "missing"]
    result = pplc("weights", "verify", check=False)
    assert result.returncode == 1
    first, _, third, *_, last = result.stdout.splitlines()
    assert first.startswith(f"damaged: {cache / NAME} differs from the file") and f"({len(WEIGHTS) + 1} bytes)" in first
    assert third.startswith("missing: ") and "pplc weights import /from/mine.onnx" in third
    assert last.endswith("2 damaged or missing")


def test_an_import_is_checked_before_it_is_read(cache):
    path = record_import(cache)
    with pytest.raises(ModelError, match="does not fit"):
        load_pretrained(_Nothing(), SPEC, str(path))
    save_file({"fc.weight": np.ones((2, 2), np.float32)}, path)
    with pytest.raises(
        ModelError, match=r"differs from the file .*pplc weights import /from/mine.onnx writes it again"
    ):
        load_pretrained(_Nothing(), SPEC, str(path))


class _Nothing:
    def state_dict(self) -> dict:
        return {}
