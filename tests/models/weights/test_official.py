"""Official weights: the manifest of the cache, mirrors, and messages about bad files and servers."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from helpers.cached_weights import NAME, OTHERS, SPEC, WEIGHTS, digits
from helpers.servers import running
from pplc_cli.base.errors import DownloadError, ModelError
from pplc_cli.base.storage import download
from pplc_cli.base.storage.locks import lock
from pplc_cli.models.registry import find_network
from pplc_cli.models.weights.manifest import Cache
from pplc_cli.models.weights.official import best_source, fetch_official
from pplc_cli.models.weights.pretrained import load_pretrained


class Evil:
    """Would create a file if it were unpickled without restrictions."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.fixture
def by_hand(cache) -> Path:
    cache.mkdir()
    (cache / NAME).write_bytes(WEIGHTS)
    return cache / NAME


def manifest(cache: Path) -> dict:
    return json.loads((cache / "manifest.json").read_text(encoding="utf-8"))


def visible(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.suffix != ".lock"}


# -- the manifest ------------------------------------------------------------------------------------------------------


def test_a_download_is_recorded_and_checked(mirror, cache, monkeypatch):
    path = fetch_official(SPEC, "imagenet")
    assert path == cache / NAME and path.read_bytes() == WEIGHTS
    assert visible(cache) == {NAME, "manifest.json"}
    recorded = manifest(cache)
    assert recorded["format"] == 1 and list(recorded["files"]) == [NAME]
    entry = recorded["files"][NAME]
    assert entry.pop("date").endswith("+00:00")
    assert entry == {
        "url": mirror.url(f"mirror/{NAME}"),
        "size": len(WEIGHTS),
        "sha256": digits(WEIGHTS),
        "network": "PPLCNet_x0_25",
        "source": "imagenet",
    }
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    assert fetch_official(SPEC, "imagenet") == path
    assert len(mirror.asked) == 1


def test_a_wrong_hash(mirror, cache, pplc):
    fetch_official(SPEC, "imagenet")
    (cache / NAME).write_bytes(OTHERS)
    result = pplc("weights", "fetch", "PPLCNet_x0_25", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    for words in (
        str(cache / NAME),
        digits(WEIGHTS)[:12],
        digits(OTHERS)[:12],
        "pplc weights fetch PPLCNet_x0_25 --source imagenet --force",
    ):
        assert words in result.stderr, words
    with pytest.raises(ModelError, match="differs from the file recorded on"):
        load_pretrained(None, SPEC, "imagenet")  # refused before anything is read
    done = pplc("weights", "fetch", "PPLCNet_x0_25", "--source", "imagenet", "--force")
    assert "is complete" in done.stdout
    assert (cache / NAME).read_bytes() == WEIGHTS
    fetch_official(SPEC, "imagenet")


def test_a_mirror_with_another_file_than_before(mirror, cache):
    fetch_official(SPEC, "imagenet")
    (cache / NAME).unlink()
    mirror.content = OTHERS
    with pytest.raises(
        DownloadError, match=rf"the downloaded file differs from the file recorded .*{digits(OTHERS)[:12]}.*--force"
    ):
        fetch_official(SPEC, "imagenet")
    assert visible(cache) == {"manifest.json"}
    notes: list[str] = []
    fetch_official(SPEC, "imagenet", force=True, note=notes.append)
    assert "differs from the previous download" in notes[0] and digits(WEIGHTS)[:12] in notes[0]
    assert manifest(cache)["files"][NAME]["sha256"] == digits(OTHERS)


def test_force_ignores_an_old_part(mirror, cache):
    cache.mkdir()
    (cache / f"{NAME}.part").write_bytes(OTHERS[:1000])
    fetch_official(SPEC, "imagenet", force=True)
    assert (cache / NAME).read_bytes() == WEIGHTS and mirror.asked == [None]


def test_a_file_put_there_by_hand(by_hand, cache, monkeypatch):
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    assert fetch_official(SPEC, "imagenet") == by_hand
    entry = manifest(cache)["files"][NAME]
    assert entry["url"] is None and entry["sha256"] == digits(WEIGHTS)
    by_hand.write_bytes(OTHERS)
    with pytest.raises(ModelError, match="differs from the file recorded"):
        fetch_official(SPEC, "imagenet")


def test_an_unreadable_file_is_not_recorded(by_hand, cache):
    by_hand.write_bytes(WEIGHTS[:-100])
    with pytest.raises(ModelError, match="is the download complete"):
        fetch_official(SPEC, "imagenet")
    assert not (cache / "manifest.json").exists()
    by_hand.write_bytes(WEIGHTS)  # the complete file may replace it
    fetch_official(SPEC, "imagenet")


ENTRY = {"url": None, "size": 1, "sha256": "0" * 64, "network": "a", "source": "b", "date": "c"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 2, "files": {}}',
        '{"format": 1, "files": []}',
        '{"format": 1, "files": {"a": {}}}',
        json.dumps({"format": 1, "files": {"a": {**ENTRY, "sha256": "12"}}}),
        json.dumps({"format": 1, "files": {"a": {**ENTRY, "size": None}}}),
        json.dumps({"format": 1, "files": {"a": {**ENTRY, "more": 1}}}),
        "[" * 100_000,
    ],
)
def test_a_damaged_manifest(by_hand, cache, content):
    (cache / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        fetch_official(SPEC, "imagenet")
    text = str(caught.value)
    assert str(cache / "manifest.json") in text and "is damaged" in text and "remove it" in text and "\n" not in text
    assert (cache / "manifest.json").read_text(encoding="utf-8") == content
    (cache / "manifest.json").unlink()
    fetch_official(SPEC, "imagenet")


def test_commands_with_a_damaged_manifest(by_hand, cache, pplc):
    (cache / "manifest.json").write_bytes(b"\xff\xfe")
    for words in (["list"], ["verify"], ["fetch", "PPLCNet_x0_25"]):
        result = pplc("weights", *words, check=False)
        assert result.returncode == 1 and result.stderr.startswith("Error: ")
        assert "is damaged" in result.stderr and result.stderr.count("\n") == 1


def test_a_manifest_that_cannot_be_written(by_hand, cache):
    (cache / ".manifest.lock").mkdir()
    notes: list[str] = []
    assert fetch_official(SPEC, "imagenet", note=notes.append) == by_hand
    (note,) = notes
    assert "is used without a record: cannot write" in note and str(cache / ".manifest.lock") in note


RECORD = """
import sys
from pplc_cli.models.weights.manifest import Cache, Entry
for index in range(30):
    Cache().record(f"{sys.argv[1]}-{index}", Entry(None, 1, "0" * 64, "n", "imported", "d"))
"""


def test_processes_at_once_keep_each_others_entries(cache):
    names = ("one", "two", "three")
    started = [subprocess.Popen([sys.executable, "-c", RECORD, name]) for name in names]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert set(Cache().entries()) == {f"{name}-{index}" for name in names for index in range(30)}


def test_processes_at_once_fetch_once(mirror, cache, pplc):
    mirror.content = WEIGHTS
    command = [sys.executable, "-m", "pplc_cli", "weights", "fetch", "PPLCNet_x0_25"]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert mirror.asked == [None]
    assert (cache / NAME).read_bytes() == WEIGHTS


# -- mirrors and bad servers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [" ", ",", ", ", "\n"])
def test_mirrors_are_tried_in_turn(server, cache, monkeypatch, between):
    server.content = WEIGHTS
    with ExitStack() as stack:
        liar = stack.enter_context(running())
        liar.content = b"<html>please log in</html>"
        deaf = stack.enter_context(closing(socket.socket()))
        deaf.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        dead = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        addresses = [dead, server.url("missing"), liar.url("a/"), server.url("good"), server.url("unused")]
        monkeypatch.setenv("PPLC_MIRROR", between.join(addresses))
        notes: list[str] = []
        fetch_official(SPEC, "imagenet", note=notes.append)
    assert (cache / NAME).read_bytes() == WEIGHTS
    assert manifest(cache)["files"][NAME]["url"] == server.url(f"good/{NAME}")
    assert len(notes) == 3
    for note, address, reason in zip(
        notes, addresses, ("refused", "404", "the downloaded file is not a readable .pdparams")
    ):
        assert note.startswith(address.rstrip("/")) and reason in note
    assert len(liar.asked) == 1 and len(server.asked) == 2


def test_no_mirror_helps(server, cache, monkeypatch):
    addresses = [server.url("missing/1"), server.url("missing/2")]
    monkeypatch.setenv("PPLC_MIRROR", " ".join(addresses))
    with pytest.raises(DownloadError) as caught:
        fetch_official(SPEC, "imagenet")
    for words in (*(f"{address}/{NAME}: the server answered 404" for address in addresses), "; then ", "PPLC_MIRROR="):
        assert words in str(caught.value)
    assert visible(cache) == set()


def test_a_server_that_drops_the_connection_twice(mirror, cache, pplc):
    mirror.drops = [100_000, 50_000]
    result = pplc("weights", "fetch", "PPLCNet_x0_25")
    assert result.stdout == f"{cache / NAME} is complete\n" and not result.stderr
    assert (cache / NAME).read_bytes() == WEIGHTS
    first, second, third = mirror.asked
    assert first is None and second.startswith("bytes=") and int(second[6:-1]) < int(third[6:-1])


def test_a_server_that_always_drops_the_connection(mirror, cache, pplc):
    mirror.drops = [60_000] * download.ATTEMPTS
    result = pplc("weights", "fetch", "PPLCNet_x0_25", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"{download.ATTEMPTS} attempts" in result.stderr and mirror.url(f"mirror/{NAME}") in result.stderr
    assert visible(cache) == {f"{NAME}.part", f".{NAME}.part.json"}
    kept = (cache / f"{NAME}.part").read_bytes()
    assert kept and WEIGHTS.startswith(kept)
    pplc("weights", "fetch", "PPLCNet_x0_25")
    assert mirror.asked[-1] == f"bytes={len(kept)}-"
    assert visible(cache) == {NAME, "manifest.json"}


def test_a_truncated_file_at_the_server(mirror, cache, pplc):
    mirror.content = WEIGHTS[:-1000]
    result = pplc("weights", "fetch", "PPLCNet_x0_25", check=False)
    assert result.returncode == 1
    assert (
        "the downloaded file is not a readable .pdparams file" in result.stderr
        and "is the download complete? You can:" in result.stderr
    )
    assert visible(cache) == set()


def test_a_truncated_file_by_hand(by_hand, pplc):
    by_hand.write_bytes(WEIGHTS[:-1000])
    result = pplc("weights", "fetch", "PPLCNet_x0_25", check=False)
    assert result.returncode == 1
    assert (
        f"{by_hand} is not a readable .pdparams file" in result.stderr and "is the download complete?" in result.stderr
    )


def test_a_malicious_file_from_a_server(mirror, cache, pplc, tmp_path):
    mirror.content = pickle.dumps({"fc.weight": Evil(tmp_path / "ran")}, 2)
    result = pplc("weights", "fetch", "PPLCNet_x0_25", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "the downloaded file is refused: it would run posix.system" in result.stderr.replace(
        "nt.system", "posix.system"
    )
    assert not (tmp_path / "ran").exists() and visible(cache) == set()


def test_a_malicious_file_from_a_user(cache, pplc, tmp_path):
    (tmp_path / "evil.pdparams").write_bytes(pickle.dumps({"fc.weight": Evil(tmp_path / "ran")}, 2))
    result = pplc("weights", "import", "evil.pdparams", check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "evil.pdparams is refused: it would run" in result.stderr and ".system" in result.stderr
    assert not (tmp_path / "ran").exists()


def test_offline(mirror, cache, pplc):
    result = pplc("weights", "fetch", "PPLCNet_x0_25", env={"PPLC_OFFLINE": "1"}, check=False)
    assert result.returncode == 1 and not mirror.asked
    for words in (f"are not in {cache}: PPLC_OFFLINE is set", str(cache / NAME)):
        assert words in result.stderr
    pplc("weights", "fetch", "PPLCNet_x0_25")
    result = pplc("weights", "fetch", "PPLCNet_x0_25", "--force", env={"PPLC_OFFLINE": "1"}, check=False)
    assert result.returncode == 1 and "cannot be downloaded again" in result.stderr
    assert pplc("weights", "fetch", "PPLCNet_x0_25", env={"PPLC_OFFLINE": "1"}).returncode == 0


def test_the_default_source():
    assert best_source(find_network("PPLCNet_x1_0")) == "imagenet_ssld"
    assert best_source(find_network("PPLCNet_ssld")) == "imagenet_ssld"
    assert best_source(SPEC) == "imagenet"
    with pytest.raises(ModelError, match="no official weights of SqueezeNext"):
        best_source(find_network("SqueezeNext_1_0_23"))


def test_locks_end_with_their_block(tmp_path):
    with lock(tmp_path / "a.lock"):
        pass
    with lock(tmp_path / "a.lock"):
        pass
