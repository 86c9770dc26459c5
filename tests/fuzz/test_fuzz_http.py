"""Mutated HTTP answers: every one gives a body or one line of why not, in bounded time and memory.

By hand, with more cases: ``PPLC_FUZZ=20000 pytest tests/fuzz/test_fuzz_http.py -m slow -s``.
"""

from __future__ import annotations

import gzip
import os
import time
from collections import Counter

import numpy as np
import pytest

from helpers.raw_server import answering
from pplc_cli.base.errors import ImageError
from pplc_cli.predict.inputs import address
from pplc_cli.predict.inputs.address import read_address

CASES = int(os.environ.get("PPLC_FUZZ", "300"))
LIMIT = 1 << 20
SECONDS = 1.5  # in place of the limit of users
BODY = bytes(range(256)) * 40
STATUSES = [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 206 Partial", b"HTTP/1.1 302 Found", b"HTTP/1.1 304 x",
            b"HTTP/1.1 100 Continue", b"HTTP/1.1 999 \x1b[31m", b"HTTP/9.9 200 OK", b"ICY 200 OK", b"HTTP/1.1 -1 x",
            b"HTTP/1.1 204 No", b"HTTP/1.1 101 Switching Protocols", b"\x16\x03\x01\x02\x00"]  # fmt: skip
HEADERS = [b"Content-Length: 10240", b"Content-Length: -1", b"Content-Length: 99999999999999999999",
           b"Content-Length: x", b"A: b\r\n folded",
           b"Content-Length: 3\r\nContent-Length: 5", b"Transfer-Encoding: chunked",
           b"Transfer-Encoding: gzip, chunked",
           b"Content-Encoding: gzip", b"Content-Encoding: gzip, gzip", b"Content-Encoding: \xff", b"Location: /again",
           b"Location: //[::1", b"Location: ftp://x/", b"Location: http://[fe80::1%25x]/", b"Location: \xff\x00",
           b"Location: http://user:pass@127.0.0.1:1/", b"Location: http://127.0.0.1:99999/", b"X" * 70_000 + b": y",
           b"no colon", b": no name", b"Set-Cookie: a=b", b"Connection: close"]  # fmt: skip
BODIES = [BODY, b"", b"x", gzip.compress(BODY), gzip.compress(bytes(9_000_000)),
          gzip.compress(gzip.compress(bytes(30_000_000))),
          b"5\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\n", b"-1\r\n", b"5\r\nhel", BODY * 500]  # fmt: skip


def answer(rng):
    """The pieces of an answer; some arrive slowly, some never end."""
    chosen = [HEADERS[n] for n in rng.integers(len(HEADERS), size=rng.integers(0, 4))]
    status = STATUSES[0 if rng.random() < 0.6 else rng.integers(len(STATUSES))]
    data = bytearray(b"\r\n".join([status, *chosen, b"", b""]) + BODIES[rng.integers(len(BODIES))])
    for _ in range(rng.integers(0, 3)):
        data[int(rng.integers(min(300, len(data))))] = rng.integers(256)
    if rng.random() < 0.2:
        del data[int(rng.integers(len(data))) :]
    slow = rng.random() < 0.05
    return bytes(data), slow


def pieces(data, slow):
    yield data
    while slow:
        time.sleep(0.1)
        yield b"x"


@pytest.mark.slow
def test_mutated_answers(monkeypatch):
    monkeypatch.setattr(address, "SECONDS", SECONDS)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    rng = np.random.default_rng(int(os.environ.get("PPLC_FUZZ_SEED", "0")))
    outcomes: Counter[str] = Counter()
    current: list = [b"", False]
    with answering(lambda _: pieces(*current)) as server:
        for _ in range(CASES):
            current[:] = answer(rng)
            began = time.monotonic()
            try:
                body = read_address(server.url(), LIMIT)
                assert len(body) <= LIMIT
                outcomes["bodies"] += 1
            except ImageError as error:
                assert "\n" not in str(error) and len(str(error)) < 500
                outcomes["errors"] += 1
            assert time.monotonic() - began < SECONDS + 30, current  # far beyond the limit: a hang
    print(f"{CASES} answers: {dict(outcomes)}")
    assert outcomes["bodies"] > CASES // 20 and outcomes["errors"] > CASES // 3
