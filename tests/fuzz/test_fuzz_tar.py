"""Mutated tar archives: every one gives images or errors, in bounded time and memory, and writes nothing.

By hand, with more cases: ``PPLC_FUZZ=20000 pytest tests/fuzz/test_fuzz_tar.py -m slow -s``.
"""

from __future__ import annotations

import gzip
import io
import os
import resource
import signal
import sys
import tarfile
from collections import Counter

import numpy as np
import pytest

from helpers.images import random_image, write_image
from pplc_cli.predict.inputs.source import MAX_ENCODED
from pplc_cli.predict.inputs.tar import read_tar

CASES = int(os.environ.get("PPLC_FUZZ", "2000"))
SECONDS = 5
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NUMBERS = ["-512", "-1", "0", "9" * 30, "1e9", "x", "", "18446744073709551615", "4294967296"]
SIZES = [b"-0000000512", b"\xff" * 11, b"\x80" + b"\xff" * 10, b"77777777777", b"garbage    "]
KEYS = ["size", "path", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.major",
        "GNU.sparse.minor", "GNU.sparse.numblocks", "hdrcharset", "mtime", "linkpath"]  # fmt: skip
KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
         tarfile.CONTTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE,
         tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"Z", b"\0"]  # fmt: skip


def archive(rng, jpeg):
    """An archive with odd members."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=FORMATS[rng.integers(3)]) as written:
        for number in range(rng.integers(1, 6)):
            member = tarfile.TarInfo(["a.jpg", "../b.png", "/c.jpg", "猫" * 30 + ".jpg", "x\ny.gif"][number])
            member.size = len(jpeg)
            if rng.random() < 0.3:
                member.pax_headers = {KEYS[rng.integers(len(KEYS))]: NUMBERS[rng.integers(len(NUMBERS))]}
            written.addfile(member, io.BytesIO(jpeg))
    return bytearray(data.getvalue())


def mutate(rng, data):
    """Change fields of headers, with a valid checksum or without, and cut or flip bytes."""
    for _ in range(rng.integers(1, 6)):
        start = 512 * int(rng.integers(len(data) // 512))
        kind = rng.integers(6)
        if kind == 0:
            data[start + 156] = KINDS[rng.integers(len(KINDS))][0]
        elif kind == 1:
            size = [b"-0000000512", b"\xff" * 11, b"\x80" + b"\xff" * 10, b"77777777777", b"garbage    "][
                rng.integers(5)
            ]
            data[start + 124 : start + 135] = size
        elif kind == 2:
            place = start + int(rng.integers(512))
            if place < len(data):
                data[place] = rng.integers(256)
        elif kind == 3:
            del data[int(rng.integers(512, len(data) + 1)) :]
        elif kind == 4:
            data[start:start] = data[:512]
        else:
            data[start + 257 : start + 265] = b"ustar  \0" if rng.random() < 0.5 else b"ustar\x0000"
        if kind != 2 and start + 512 <= len(data) and rng.random() < 0.8:
            block = bytes(data[start : start + 148]) + b" " * 8 + bytes(data[start + 156 : start + 512])
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return data


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses SIGALRM and ru_maxrss in kilobytes")
def test_mutated_archives(tmp_path):
    write_image(tmp_path / "one.jpg", random_image(1))
    jpeg, folder = (tmp_path / "one.jpg").read_bytes(), tmp_path / "archives"
    folder.mkdir()
    rng = np.random.default_rng(int(os.environ.get("PPLC_FUZZ_SEED", "0")))
    outcomes: Counter[str] = Counter()

    def late(*_):
        raise AssertionError("took more than 5 seconds")  # read_tar turns it into an error, which fails below

    before = signal.signal(signal.SIGALRM, late)
    try:
        peak = 0
        for number in range(CASES):
            data = bytes(mutate(rng, archive(rng, jpeg)))
            path = folder / f"x.tar{['', '.gz'][number % 4 == 0]}"
            path.write_bytes(gzip.compress(data, 1) if number % 4 == 0 else data)
            signal.alarm(SECONDS)
            for source in read_tar(str(path)):
                outcomes["errors" if source.error else "images"] += 1
                assert source.error is None or ("\n" not in source.error and "5 seconds" not in source.error)
                assert (source.data is None) == (source.error is not None)
                assert source.data is None or len(source.data) <= MAX_ENCODED
            signal.alarm(0)
            path.unlink()
            if number == CASES // 10:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert grown < 300_000 and not list(folder.iterdir())
    print(f"{CASES} archives: {dict(outcomes)}, memory grew by {grown >> 10} MB")
    assert outcomes["images"] > CASES // 2 and outcomes["errors"] > CASES // 10
