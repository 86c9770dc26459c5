"""Fetching from a real server on this machine that drops connections, refuses ranges and lies."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from helpers.servers import DATA
from pplc_cli.base.errors import DownloadError
from pplc_cli.base.storage import download
from pplc_cli.base.storage.download import fetch, read_url


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


def test_part_longer_than_the_file_begins_anew(server, tmp_path: Path):
    (tmp_path / "weights.bin.part").write_bytes(b"x" * (len(DATA) + 5))
    fetch(server.url(), tmp_path / "weights.bin")
    assert server.asked == [f"bytes={len(DATA) + 5}-", None]
    assert (tmp_path / "weights.bin").read_bytes() == DATA


def test_complete_part(server, tmp_path: Path):
    (tmp_path / "weights.bin.part").write_bytes(DATA)
    fetch(server.url(), tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_bytes() == DATA


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
    with pytest.raises(DownloadError):
        read_url(url, 100)
    assert list(tmp_path.iterdir()) == []


def test_endless_redirect(server, tmp_path: Path):
    with pytest.raises(DownloadError, match="redirect"):
        fetch(server.url("loop"), tmp_path / "w")


def test_unusable_proxy(server, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:1")
    with pytest.raises(DownloadError, match="gopher"):
        fetch("http://example.invalid/w", tmp_path / "w")


def test_read_url(server):
    assert read_url(server.url(), len(DATA)) == DATA
    with pytest.raises(DownloadError, match="larger than"):
        read_url(server.url(), len(DATA) - 1)
    with pytest.raises(DownloadError, match="404"):
        read_url(server.url("missing"), 100)


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
