"""Mutated requests to ``pplc serve``: no traceback, no hang, and the service answers on.

By hand, with more cases: ``PPLC_FUZZ=2000 pytest tests/fuzz/test_fuzz_serving.py -m slow -s``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import time
from collections import Counter

import numpy as np
import pytest

from helpers.images import encoded_image, random_image
from helpers.service import serving

pytest.importorskip("fastapi_offline", reason="needs pplc[serve]")

CASES = int(os.environ.get("PPLC_FUZZ", "300"))
IMAGE = encoded_image(random_image(1), ".jpg")
TEXT = base64.b64encode(IMAGE)
FORM = (b"--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n"
        + IMAGE + b"\r\n--x\r\nContent-Disposition: form-data; name=\"label\"\r\n\r\ndog\r\n--x--\r\n")  # fmt: skip
TYPES = [b"image/jpeg", b"application/json", b"multipart/form-data; boundary=x", b"multipart/form-data",
         b"multipart/form-data; boundary=" + b"y" * 5000, b"text/plain", b"\xff\xfe"]  # fmt: skip
PATHS = [b"/predict", b"/predict?top_k=1", b"/predict?top_k=-1&model=%00", b"/image-classification", b"/explain",
         b"/correct?label=dog", b"/correct?label=%F0%9F%90%BC%0A", b"/models", b"/metrics", b"/..%2f..%2fetc/passwd",
         b"/page/%2e%2e/app.py", b"/" + b"a" * 9000, b"/predict?" + b"&".join([b"a=b"] * 3000)]  # fmt: skip
BODIES = [IMAGE, FORM, b'{"image": "' + TEXT + b'"}', b'{"images": ["' + TEXT + b'"], "top_k": 1e999}', b"[" * 100_000,
          b'{"image": {"a": 1}}', b'{"image": "http://[::1", "topk": true}', b"", IMAGE[:500], b"\x00" * 3000,
          b'{"images": ["' + b'","'.join([b"eA=="] * 500) + b'"]}', FORM.replace(b"name=\"files\"", b"")]  # fmt: skip
HEADERS = [b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: x", b"Host: evil",
           b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Expect: 100-continue", b"X: " + b"y" * 70_000,
           b"Authorization: Bearer " + b"\xff" * 50, b"Connection: upgrade\r\nUpgrade: websocket", b"no colon",
           b"Origin: http://evil", b"Range: bytes=5-1", b"Accept-Encoding: *"]  # fmt: skip


def request(rng):
    """The bytes of a request; some are cut off, some have changed bytes."""
    if rng.random() < 0.2:  # a sound one with an image that may be cut off: it gets as far as the decoder
        body = IMAGE[: int(rng.integers(20, 2 * len(IMAGE)))]
        return b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    path, kind, body = (choices[rng.integers(len(choices))] for choices in (PATHS, TYPES, BODIES))
    method = [b"POST", b"POST", b"POST", b"GET", b"PUT", b"BREW"][rng.integers(6)]
    if rng.random() < 0.5:  # one that the service can read so far
        kind = TYPES[0] if body in (IMAGE, IMAGE[:500]) else TYPES[2] if body.startswith(b"--x") else TYPES[1]
    headers = [b"Host: 127.0.0.1", b"Content-Type: " + kind]
    headers += [HEADERS[number] for number in rng.integers(len(HEADERS), size=max(0, rng.integers(-3, 3)))]
    if rng.random() < 0.8:
        headers.append(b"Content-Length: %d" % (len(body) + rng.integers(-5, 5) * (rng.random() < 0.2)))
    data = bytearray(b"\r\n".join([method + b" " + path + b" HTTP/1.1", *headers, b"", b""]) + body)
    for _ in range(max(0, rng.integers(-3, 4))):
        data[int(rng.integers(min(len(data), 400) if rng.random() < 0.5 else len(data)))] = rng.integers(256)
    if rng.random() < 0.15:
        del data[int(rng.integers(len(data))) :]
    return bytes(data)


@pytest.mark.slow
def test_mutated_requests(trained, tmp_path):
    rng = np.random.default_rng(int(os.environ.get("PPLC_FUZZ_SEED", "0")))
    outcomes: Counter[str] = Counter()
    with serving(tmp_path, str(trained.run), "--max-mb", "1", "--collect", "kept") as service:

        def answer() -> str:
            with service.client() as client:
                return json.dumps(client.post("/predict", content=IMAGE).json()["predictions"])

        expected = answer()
        unfinished = []
        for number in range(CASES):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", service.port), timeout=20)
                connection.sendall(request(rng))
                if rng.random() < 0.1:
                    unfinished.append(connection)  # stays open, and silent
                    continue
                began = time.monotonic()
                with connection:
                    # Only then: a server may drop the request of a client that has closed its side.
                    if not select.select([connection], [], [], 0.2)[0]:
                        connection.shutdown(socket.SHUT_WR)
                    first = connection.recv(4096)
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                assert time.monotonic() - began < 20, "a hang"
                outcomes[first[9:12].decode("latin-1") or "closed"] += 1
            if number % 50 == 0:
                assert answer() == expected
        assert answer() == expected
        for connection in unfinished:
            connection.close()
        assert answer() == expected
        assert service.process.poll() is None
    print(dict(outcomes))
    assert outcomes["200"] and outcomes["400"] and outcomes["422"] and not outcomes["500"]
