"""Fetching from a real server on this machine that drops connections, refuses ranges and lies."""

from __future__ import annotations

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.servers import DATA, running
from pplc_cli.base.errors import DownloadError
from pplc_cli.base.storage import download
from pplc_cli.base.storage.download import fetch


def test_whole_download(server, tmp_path: Path):
    target = tmp_path / "deep" / "folder" / "weights.bin"
    steps = []
    fetch(server.url(), target, progress=lambda done, total: steps.append((done, total)))
    assert target.read_bytes() == DATA
    assert [p.name for p in target.parent.iterdir()] == ["weights.bin"]
    assert server.asked == [None]
    assert steps[-1] == (len(DATA), len(DATA)) and steps == sorted(steps) and len(steps) > 1


def test_resume_after_two_dropped_connections(server, tmp_path: Path):
    target = tmp_path / "weights.bin"
    server.drops = [100_000, 50_000]
    totals = []

    def progress(done, total):
        assert not target.exists()
        totals.append(total)

    fetch(server.url(), target, progress=progress)
    assert target.read_bytes() == DATA
    first, second, third = server.asked
    assert first is None
    # What arrived before the cut was kept: each request begins where the bytes so far end.
    assert 0 < int(second[6:-1]) <= 100_000
    assert int(second[6:-1]) < int(third[6:-1]) <= 150_000
    assert set(totals) == {len(DATA)}
    assert not (tmp_path / "weights.bin.part").exists()


def test_too_many_drops_keep_the_part_for_the_next_run(server, tmp_path: Path):
    target, part = tmp_path / "weights.bin", tmp_path / "weights.bin.part"
    server.drops = [70_000] * download.ATTEMPTS
    with pytest.raises(DownloadError) as caught:
        fetch(server.url(), target)
    assert server.url() in str(caught.value) and f"{download.ATTEMPTS} attempts" in str(caught.value)
    assert not target.exists()
    kept = part.read_bytes()
    assert kept and DATA.startswith(kept)
    fetch(server.url(), target)
    assert server.asked[-1] == f"bytes={len(kept)}-"
    assert target.read_bytes() == DATA and not part.exists()


def test_server_without_ranges(server, tmp_path: Path):
    target = tmp_path / "weights.bin"
    server.ranges = False
    server.drops = [100_000]
    fetch(server.url(), target)
    assert server.asked[1].startswith("bytes=")
    assert target.read_bytes() == DATA


def test_server_that_sends_another_range(server, tmp_path: Path):
    server.drops = [100_000]
    server.shift = 10
    fetch(server.url(), tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_bytes() == DATA


def interrupted(server, target: Path, size: int, monkeypatch) -> None:
    """Begin a download, which breaks after ``size`` bytes at most."""
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.drops = [size]
    with pytest.raises(DownloadError):
        fetch(server.url(), target)
    assert 0 < target.with_name(f"{target.name}.part").stat().st_size <= size


@pytest.mark.parametrize("content", [b"x" * 1000, DATA, DATA + b"12345"])
def test_a_part_of_unknown_origin_begins_anew(server, tmp_path: Path, content):
    (tmp_path / "weights.bin.part").write_bytes(content)
    fetch(server.url(), tmp_path / "weights.bin")
    assert server.asked == [None]
    assert (tmp_path / "weights.bin").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


BREAKS = (70_000, 100_000, 150_000, 200_000, 250_000, 299_999)
OTHER = bytes(reversed(DATA))


@pytest.mark.parametrize("size", BREAKS)
@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_meanwhile_begins_anew(server, tmp_path: Path, monkeypatch, size, if_range):
    target = tmp_path / "weights.bin"
    interrupted(server, target, size, monkeypatch)
    server.content, server.if_range = OTHER, if_range
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    fetch(server.url(), target)
    assert target.read_bytes() == OTHER
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


@pytest.mark.parametrize("size", BREAKS)
def test_the_part_of_another_address_begins_anew(server, tmp_path: Path, monkeypatch, size):
    target = tmp_path / "weights.bin"
    server.tag = '"the same"'
    interrupted(server, target, size, monkeypatch)
    with running() as mirror:
        mirror.content, mirror.tag = OTHER, server.tag
        fetch(mirror.url(), target)
        assert mirror.asked == [None]
    assert target.read_bytes() == OTHER


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_a_server_that_does_not_name_its_version_begins_anew(server, tmp_path: Path, monkeypatch, tag):
    server.tag = tag
    interrupted(server, tmp_path / "weights.bin", 100_000, monkeypatch)
    server.content = OTHER
    fetch(server.url(), tmp_path / "weights.bin")
    assert server.asked == [None, None]
    assert (tmp_path / "weights.bin").read_bytes() == OTHER


@pytest.mark.parametrize("origin", ["", "[]", "null", '{"url": 1}', "{" * 5000])
def test_a_damaged_record_of_the_origin_begins_anew(server, tmp_path: Path, monkeypatch, origin):
    interrupted(server, tmp_path / "weights.bin", 100_000, monkeypatch)
    (tmp_path / ".weights.bin.part.json").write_text(origin, encoding="utf-8")
    fetch(server.url(), tmp_path / "weights.bin")
    assert server.asked == [None, None]
    assert (tmp_path / "weights.bin").read_bytes() == DATA


@pytest.mark.parametrize("path", ["drip-header", "drip-body"])
def test_an_answer_that_never_ends(server, tmp_path: Path, monkeypatch, path):
    monkeypatch.setattr(download, "TOTAL_SECONDS", 1)
    with pytest.raises(DownloadError, match="took more than"):
        fetch(server.url(path), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("path", ["weights.bin", "drip-body"])  # with and without a length
def test_a_file_that_is_too_large(server, tmp_path: Path, monkeypatch, path):
    monkeypatch.setattr(download, "MAX_BYTES", 10)
    with pytest.raises(DownloadError, match="is larger than"):
        fetch(server.url(path), tmp_path / "w")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def https(tmp_path: Path, server) -> Iterator[str]:
    """An https server whose certificate is known, and which redirects to the http server."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    names = {"key": tmp_path / "key.pem", "certificate": tmp_path / "certificate.pem"}
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(names["key"]),
        "-out",
        str(names["certificate"]),
    ]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(names["certificate"], names["key"])

    class Redirecting(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", server.url())
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        thread = threading.Thread(target=secure.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"https://127.0.0.1:{secure.server_address[1]}/w"
        finally:
            secure.shutdown()
            thread.join()


def test_no_redirect_from_https_to_http(https, server, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with pytest.raises(DownloadError, match="redirects from https to http://"):
        fetch(https, tmp_path / "w")
    assert server.asked == []


def test_certificates_that_are_missing_are_named(server, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(DownloadError, match=r"certificates .* cannot be read: .*SSL_CERT_FILE=.*missing\.pem"):
        fetch(server.url(), tmp_path / "w")


def test_missing_at_the_server(server, tmp_path: Path):
    with pytest.raises(DownloadError, match=r"/missing\.bin: the server answered 404 Not Found"):
        fetch(server.url("missing.bin"), tmp_path / "w")
    assert len(server.asked) == 1  # asking again would not help
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(server, tmp_path: Path):
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    server.drops = [10] * download.ATTEMPTS
    with pytest.raises(DownloadError):
        fetch(server.url(), target)
    assert target.read_bytes() == b"old"


def test_nobody_listens(server, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with pytest.raises(DownloadError, match="refused"):
            fetch(f"http://127.0.0.1:{free.getsockname()[1]}/w", tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["no address", "ftp://127.0.0.1/w", "http://", "http://[::1", "file:///etc/hosts"])
def test_unusable_addresses(url, server, tmp_path: Path):
    with pytest.raises(DownloadError):
        fetch(url, tmp_path / "w")
    assert list(tmp_path.iterdir()) == []


def test_endless_redirect(server, tmp_path: Path):
    with pytest.raises(DownloadError, match="redirect"):
        fetch(server.url("loop"), tmp_path / "w")


def test_unusable_proxy(server, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:1")
    with pytest.raises(DownloadError, match="gopher"):
        fetch("http://example.invalid/w", tmp_path / "w")


def test_mirror_end_to_end(server, cache, tmp_path: Path, monkeypatch):
    """From a mirror into a network: the file that Paddle wrote arrives and its numbers are the network's."""
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.models.registry import build_network, find_network
    from pplc_cli.models.weights.pretrained import load_pretrained

    paddle = load_paddle()
    published = build_network("PPLCNet_x0_25", 1000)
    paddle.save(published.state_dict(), str(tmp_path / "w.pdparams"))
    server.content = (tmp_path / "w.pdparams").read_bytes()
    server.drops = [1_000_000]
    monkeypatch.setenv("PPLC_MIRROR", server.url("mirror/"))
    network = build_network("PPLCNet_x0_25", 4)
    where, left = load_pretrained(network, find_network("PPLCNet_x0_25"), "imagenet")
    assert where == str(cache / "PPLCNet_x0_25_pretrained.pdparams")
    assert left == ["fc.bias", "fc.weight"]
    for key, tensor in network.state_dict().items():
        if key not in left:
            assert np.array_equal(tensor.numpy(), published.state_dict()[key].numpy()), key
    # The second time it lies in the cache, also without a network.
    requests = len(server.asked)
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    load_pretrained(network, find_network("PPLCNet_x0_25"), "imagenet")
    assert len(server.asked) == requests == 2


def test_mirror_without_the_file(server, cache, monkeypatch):
    from pplc_cli.models.registry import find_network
    from pplc_cli.models.weights.official import fetch_official

    monkeypatch.setenv("PPLC_MIRROR", server.url("missing"))
    with pytest.raises(DownloadError) as caught:
        fetch_official(find_network("PPLCNet_x1_0"), "imagenet_ssld")
    text = str(caught.value)
    for words in (
        "imagenet_ssld",
        "PPLCNet_x1_0",
        "404",
        "missing/PPLCNet_x1_0_ssld_pretrained.pdparams",
        "PPLC_MIRROR",
    ):
        assert words in text
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]
