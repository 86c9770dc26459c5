"""Collect photographs without labels from local clones, for scripts/pretrain_builtin.py.

    pip install 'pplc[pretrain]'
    python scripts/collect_pool.py --clones FOLDER --output FOLDER [--apart FOLDER|FILE ...] [--pool FOLDER]

The table (default: scripts/pool_sources.csv) has the columns source, repository (owner/name), commit, path (a regular
expression) and limit (most photographs, chosen evenly; empty: all). A clone is a git folder CLONES/owner+name/repo, or
one that `--clone REPOSITORY=FOLDER` names. Each source becomes a tar file of JPEGs whose short side is at most 160
pixels; report.json counts what was left out and why. The same command goes on with the sources that are missing.

A photograph is left out if its 64-bit difference hash, or that of its mirror image, is within 4 bits of one of --apart
(folders of photographs, or files with a hash per line), of --pool (tar files) or of a photograph collected before.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import cv2
import imagehash
import numpy as np
from PIL import Image

from pplc_cli.base.errors import ImageError
from pplc_cli.base.hardware import physical_cores
from pplc_cli.base.storage.files import atomic_file, write_json
from pplc_cli.data.decode import decode_image
from pplc_cli.data.image_files import is_image_name, list_files
from pplc_cli.data.lists import spread

SHORT_SIDE = 160  # pixels
LEAST_SIDE = 60
MOST_ELONGATED = 3.0
BLANK = 4.0  # standard deviation of the grey values
QUALITY = 90
MAX_BITS = 4


class Hashes:
    """Difference hashes that grow by one at a time."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._values = np.array(list(values), np.uint64)
        self._count = len(self._values)

    def near(self, value: int) -> bool:
        """Whether a hash is within :data:`MAX_BITS` of any of these."""
        return bool((np.bitwise_count(self._values[: self._count] ^ np.uint64(value)) <= MAX_BITS).any())

    def add(self, value: int) -> None:
        """Add a hash."""
        if self._count == len(self._values):
            self._values = np.resize(self._values, 2 * self._count + 1024)
        self._values[self._count] = value
        self._count += 1


def difference_hash(image: np.ndarray) -> int:
    """Hash an image, uint8 RGB."""
    return int(str(imagehash.dhash(Image.fromarray(image))), 16)


def prepared(data: bytes) -> tuple[str, Optional[bytes], list[int]]:
    """Return the reason to leave a photograph out or "", its JPEG, and the hashes of it and of its mirror image."""
    try:
        image = decode_image(data)
    except ImageError:
        return "unreadable", None, []
    short, long = sorted(image.shape[:2])
    if short < LEAST_SIDE or long > MOST_ELONGATED * short or image.std() < BLANK:
        return "too small, elongated or blank", None, []
    hashes = [difference_hash(image), difference_hash(image[:, ::-1])]
    if short <= SHORT_SIDE and data.startswith(b"\xff\xd8"):
        return "", data, hashes
    scale = min(1.0, SHORT_SIDE / short)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return "", cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(), hashes


def blobs(clone: Path, commit: str, pattern: str, limit: Optional[int]) -> Iterator[bytes]:
    """Yield the image files of a commit whose path matches a regular expression."""
    command = ["git", "-C", str(clone), "ls-tree", "-rz", commit]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"{clone}: expected a clone with the commit {commit}: {done.stderr.strip()}")
    listed = done.stdout
    wanted = []
    for row in filter(None, listed.split("\0")):
        facts, _, name = row.partition("\t")
        if is_image_name(name) and re.search(pattern, name):
            wanted.append(facts.split()[2])
    command = ["git", "-C", str(clone), "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for digest in spread(wanted, limit or len(wanted)):
            process.stdin.write(f"{digest}\n".encode())
            process.stdin.flush()
            answer = process.stdout.readline().split()
            if answer[1:2] != [b"blob"]:
                continue  # a snapshot may lack its largest files
            yield process.stdout.read(int(answer[2]))
            process.stdout.read(1)
        process.stdin.close()


def in_batches(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield lists of at most ``size`` items."""
    batch: list[bytes] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def tar_contents(path: Path) -> Iterator[bytes]:
    """Yield the files of a tar file."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and is_image_name(member.name):
                source = archive.extractfile(member)
                assert source is not None
                yield source.read()


def hashes_of(contents: Iterable[bytes], pool: ThreadPoolExecutor) -> Iterator[list[int]]:
    """Yield the hashes of photographs and of their mirror images."""
    for batch in in_batches(contents, 256):
        for _, _, hashes in pool.map(prepared, batch):
            if hashes:
                yield hashes


def read_apart(places: list[Path], pool: ThreadPoolExecutor) -> Hashes:
    """Read or compute the hashes of photographs that must not be collected."""
    values: list[int] = []
    for place in places:
        if place.is_dir():
            files = (file.read_bytes() for file in list_files(place) if is_image_name(file))
            values += [value for both in hashes_of(files, pool) for value in both]
        else:
            values += [int(line, 16) for line in place.read_text("ascii").split()]
    return Hashes(values)


def collect(
    name: str, contents: Iterable[bytes], target: Path, apart: Hashes, known: Hashes, pool: ThreadPoolExecutor
) -> dict[str, int]:
    """Write the photographs of a source to a tar file, and count what was left out."""
    counts: collections.Counter[str] = collections.Counter()
    with atomic_file(target) as temporary, tarfile.open(temporary, "w") as archive:
        for batch in in_batches(contents, 256):
            for reason, data, hashes in pool.map(prepared, batch):
                counts["found"] += 1
                if not reason and any(map(apart.near, hashes)):
                    reason = "near-duplicate of a photograph kept apart"
                if not reason and any(map(known.near, hashes)):
                    reason = "near-duplicate within the pool"
                counts[reason or "kept"] += 1
                if reason or data is None:
                    continue
                known.add(hashes[0])
                member = tarfile.TarInfo(f"{name}/{counts['kept']:06d}.jpg")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return dict(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", type=Path, required=True, help="folder of the clones")
    parser.add_argument("--clone", action="append", default=[], metavar="REPOSITORY=FOLDER", help="a clone elsewhere")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_name("pool_sources.csv"))
    parser.add_argument("--output", type=Path, required=True, help="folder for the tar files and report.json")
    parser.add_argument("--apart", type=Path, nargs="*", default=[], help="photographs to keep out, or files of hashes")
    parser.add_argument("--pool", type=Path, help="folder of tar files that are there already")
    arguments = parser.parse_args()
    places = dict(each.split("=", 1) for each in arguments.clone)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(physical_cores()) as pool:
        apart = read_apart(arguments.apart, pool)
        known, report = Hashes(), {}
        for shard in sorted(arguments.pool.glob("*.tar")) if arguments.pool else []:
            for hashes in hashes_of(tar_contents(shard), pool):
                known.add(hashes[0])
        for row in csv.DictReader(arguments.table.open(encoding="utf-8", newline="")):
            name, target = row["source"], arguments.output / f"{row['source']}.tar"
            if target.exists():
                for hashes in hashes_of(tar_contents(target), pool):
                    known.add(hashes[0])
                continue
            clone = Path(places.get(row["repository"], arguments.clones / row["repository"].replace("/", "+") / "repo"))
            if not clone.is_dir():
                print(f"{name}: no clone of {row['repository']} in {clone}; left out", file=sys.stderr)
                continue
            limit = int(row["limit"]) if row["limit"] else None
            report[name] = collect(name, blobs(clone, row["commit"], row["path"], limit), target, apart, known, pool)
            write_json(target.with_suffix(".json"), report[name])
            print(f"{name}: {report[name]}", flush=True)
    every = {file.stem: file for file in arguments.output.glob("*.json") if file.name != "report.json"}
    total = collections.Counter()
    for name, file in sorted(every.items()):
        report[name] = json.loads(file.read_text("utf-8"))
        total.update(report[name])
    write_json(arguments.output / "report.json", {"sources": report, "total": dict(total)})
    print(f"all: {dict(total)}")


if __name__ == "__main__":
    main()
