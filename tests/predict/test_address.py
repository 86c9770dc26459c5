"""Addresses of images: bounded in time and size, and no way from the internet into a private network."""

from __future__ import annotations

import gzip
import itertools
import time

import numpy as np
import pytest

from helpers.images import random_image, write_image
from helpers.raw_server import answering, response
from pplc_cli.base.errors import ImageError
from pplc_cli.predict.inputs import address, source
from pplc_cli.predict.inputs.address import read_address
from pplc_cli.predict.predictor import Predictor

LIMIT = 100_000


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """Reach 127.0.0.1 without a proxy."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetched(answer, path="x.jpg"):
    with answering(answer) as server:
        return read_address(server.url(path), LIMIT)


def refused(message, answer, path="x.jpg"):
    with pytest.raises(ImageError, match=message) as caught:
        fetched(answer, path)
    assert "\n" not in str(caught.value)


def test_a_body_is_returned_up_to_the_limit():
    body = bytes(range(250)) * (LIMIT // 250)
    assert fetched(lambda _: [response(body)]) == body
    assert fetched(lambda _: [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", body[:50], body[50:]]) == body
    refused("is larger than 0 MB", lambda _: [response(body + b"x")])
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"x" * 5000))
    refused("is larger than 0 MB", lambda _: endless)
    refused("the server answered 404 Not Found", lambda _: [response(status="404 Not Found")])
    refused("cannot be fetched", lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])


def test_gzip_is_unpacked_once_and_up_to_the_limit():
    body = b"picture" * 1000
    assert fetched(lambda _: [response(gzip.compress(body), "Content-Encoding: gzip")]) == body
    bomb = gzip.compress(bytes(50_000_000))
    refused("is larger than 0 MB", lambda _: [response(bomb, "Content-Encoding: gzip")])
    stacked = gzip.compress(bomb)
    refused("encoding 'gzip, gzip'", lambda _: [response(stacked, "Content-Encoding: gzip, gzip")])
    refused("encoding 'br'", lambda _: [response(b"x", "Content-Encoding: br")])
    refused("cut off", lambda _: [response(gzip.compress(body)[:30], "Content-Encoding: gzip")])
    refused("cannot be fetched", lambda _: [response(b"no gzip", "Content-Encoding: gzip")])


def dripping(head, piece):
    """An answer that never ends and never pauses for long."""

    def answer(_):
        yield head
        while True:
            time.sleep(0.05)
            yield piece

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        dripping(b"", b"H"),
        dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    ],
    ids=["body", "body without a length", "header", "status", "headers"],
)
def test_a_slow_answer_ends(answer, monkeypatch):
    monkeypatch.setattr(address, "SECONDS", 0.7)
    refused("cannot be fetched", answer)


def test_headers_are_bounded():
    endless = itertools.chain([b"HTTP/1.1 200 OK\r\n"], (f"X-{n}: y\r\n".encode() for n in itertools.count()))
    refused("cannot be fetched", lambda _: endless)


def moved(to):
    return response(b"", f"Location: {to}", status="302 Found")


def test_redirects_are_followed_and_counted():
    def answer(first):
        number = int(first.split()[1].strip("/"))
        return [moved(f"/{number - 1}") if number else response(b"there")]

    assert fetched(answer, "5") == b"there"
    refused("redirects more than 5 times", answer, "6")
    for other in ("ftp://127.0.0.1/x", "file:///etc/passwd", "gopher://127.0.0.1/"):
        refused("redirects to|cannot be fetched", lambda _, to=other: [moved(to)])
    refused("cannot be fetched|redirects to", lambda _: [moved("http://[::1")])


def test_a_redirect_from_the_internet_stays_there(monkeypatch):
    """A proxy stands for the internet: it answers for a public host with a redirect to this machine."""
    with answering(lambda _: [response(b"secret")]) as inside:
        targets = {
            "/a": inside.url(),
            "/b": inside.url().replace("127.0.0.1", "localhost"),
            "/c": "http://10.0.0.1/x",
            "/d": "http://[::1]/x",
            "/public": "http://other.example/there",
        }

        def proxy(first):
            place = first.split()[1].partition(".example")[2]
            return [moved(targets[place]) if place in targets else response(b"public")]

        with answering(proxy) as outside:
            monkeypatch.setenv("HTTP_PROXY", outside.url(""))
            monkeypatch.setenv("http_proxy", outside.url(""))
            for place in ("/a", "/b", "/c", "/d"):
                with pytest.raises(ImageError, match="of this machine or a private network"):
                    read_address(f"http://photos.example{place}", LIMIT)
            assert read_address("http://photos.example/public", LIMIT) == b"public"
            assert not inside.asked
            assert read_address(inside.url(), LIMIT) == b"secret"  # asked for by the user


def test_bad_addresses_do_not_stop_the_others(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(address, "SECONDS", 0.7)
    monkeypatch.setattr(source, "MAX_ENCODED", LIMIT)
    write_image(tmp_path / "x.jpg", random_image(1))
    good = (tmp_path / "x.jpg").read_bytes()
    answers = {
        "slow.jpg": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        "bomb.jpg": lambda _: [response(gzip.compress(bytes(9_000_000)), "Content-Encoding: gzip")],
        "x.jpg": lambda _: [response(good)],
    }
    with answering(lambda first: answers[first.split()[1].strip("/")](first)) as server:
        names = ["slow.jpg", "x.jpg", "bomb.jpg", "x.jpg"]
        found = list(Predictor(untrained(0), engine="pplc").predict([server.url(name) for name in names]))
    assert [prediction.error is None for prediction in found] == [False, True, False, True]
    assert found[1].top == found[3].top and np.isfinite(found[1].score)
