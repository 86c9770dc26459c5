"""scripts/collect_pool.py: photographs from a clone, without near-duplicates."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.commands import ROOT

pytest.importorskip("imagehash", reason="needs pip install 'pplc[pretrain]'")


def photograph(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Smooth random shapes, which keep their difference hash when they are encoded anew or made smaller."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def clone(tmp_path):
    """A repository with photographs, copies of one of them, and files that cannot be used."""
    folder = tmp_path / "clones" / "some+where" / "repo"
    for seed in range(6):
        write(folder / "images" / f"{seed}.jpg", photograph(seed))
    write(folder / "images" / "mirrored.png", photograph(0)[:, ::-1])
    write(folder / "images" / "smaller.jpg", cv2.resize(photograph(1), (200, 150), interpolation=cv2.INTER_AREA))
    write(folder / "images" / "strip.png", photograph(20, 60, 400))
    write(folder / "images" / "blank.png", np.full((100, 100, 3), 128, np.uint8))
    (folder / "images" / "broken.jpg").write_bytes(b"\xff\xd8 no photograph")
    write(folder / "elsewhere" / "x.jpg", photograph(30))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=folder, text=True).strip()
    table = tmp_path / "table.csv"
    table.write_text(f"source,repository,commit,path,limit\nfirst,some/where,{commit},^images/,\n", encoding="utf-8")
    return tmp_path, table


def collect(folder: Path, table: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "scripts" / "collect_pool.py"), "--clones", str(folder / "clones")]
    words += ["--table", str(table), "--output", str(folder / "pool"), *more]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT)


def test_near_duplicates_and_what_cannot_be_used_are_counted(clone):
    folder, table = clone
    write(folder / "apart" / "one.png", photograph(2)[:, ::-1])
    import imagehash
    from PIL import Image

    hashes = folder / "apart.dhash"
    hashes.write_text(f"{imagehash.dhash(Image.fromarray(photograph(3)[..., ::-1]))}\n", encoding="ascii")
    done = collect(folder, table, "--apart", str(folder / "apart"), str(hashes))
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "pool" / "report.json").read_text(encoding="utf-8"))
    assert (
        report["total"]
        == report["sources"]["first"]
        == {
            "found": 11,
            "kept": 4,
            "near-duplicate of a photograph kept apart": 2,
            "near-duplicate within the pool": 2,
            "too small, elongated or blank": 2,
            "unreadable": 1,
        }
    )
    with tarfile.open(folder / "pool" / "first.tar") as archive:
        sizes = []
        for member in archive:
            source = archive.extractfile(member)
            assert source is not None
            sizes.append(cv2.imdecode(np.frombuffer(source.read(), np.uint8), cv2.IMREAD_COLOR).shape[:2])
    assert len(sizes) == 4 and set(sizes) <= {(160, 213), (150, 200)}

    # The same again collects nothing; another table goes on, without what the first source has.
    before = (folder / "pool" / "first.tar").stat().st_mtime_ns
    row = table.read_text(encoding="utf-8").splitlines()[1].split(",")
    table.write_text(table.read_text(encoding="utf-8") + ",".join(["second", *row[1:3], ".", "3"]) + "\n")
    done = collect(folder, table, "--apart", str(folder / "apart"), str(hashes))
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "pool" / "report.json").read_text(encoding="utf-8"))
    assert (folder / "pool" / "first.tar").stat().st_mtime_ns == before
    assert report["sources"]["second"]["found"] == 3 and report["total"]["found"] == 14


def test_a_commit_that_is_not_there_is_one_line(clone):
    folder, table = clone
    table.write_text("source,repository,commit,path,limit\nfirst,some/where,0123abcd,.,\n", encoding="utf-8")
    done = collect(folder, table)
    assert done.returncode == 1 and "expected a clone with the commit 0123abcd" in done.stderr
    assert "Traceback" not in done.stderr and not list((folder / "pool").glob("*.tar*"))
