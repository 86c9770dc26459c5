"""Atomic files and folders: a failure or a kill leaves the old one or the new one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pplc_cli.base.errors import PplcError
from pplc_cli.base.processes.identity import process_identity
from pplc_cli.base.storage.files import (
    TEMPORARY,
    atomic_directory,
    atomic_file,
    quoted,
    recover_directory,
    remove_leftovers,
    user_path,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden names too."""
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, number: int) -> None:
    """Two files that belong together."""
    (folder / "a.txt").write_text(str(number))
    (folder / "b.txt").write_text(str(number))


def test_atomic_file_replaces(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    write_text(target, "old\n")
    write_text(target, "新\n")
    assert target.read_bytes() == "新\n".encode()
    assert names(target.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), PplcError("x")])
def test_failure_in_the_block_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "weights.safetensors") as temporary:
        assert temporary.suffix == ".safetensors"
        temporary.write_bytes(b"x")


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PplcError, match=r"cannot write .*file"):
        write_text(tmp_path / "file" / "below.txt", "x")
    with pytest.raises(PplcError, match="cannot write"):
        write_text(tmp_path / ("x" * 400), "x")


def test_write_json_is_readable_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"名": [1, None]})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "名" in text and json.loads(text) == {"名": [1, None]}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_failure_in_the_block_keeps_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "best"
    with atomic_directory(target) as temporary:
        fill(temporary, 1)
    expected = PplcError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), atomic_directory(target) as temporary:
        (temporary / "a.txt").write_text("2")
        raise error
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a.txt": "1", "b.txt": "1"}
    assert names(tmp_path) == ["best"]


def test_atomic_directory_replaces_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "best"
    with atomic_directory(target) as temporary:
        (temporary / "gone.txt").write_text("x")
    with atomic_directory(target) as temporary:
        (temporary / "deep").mkdir()
        fill(temporary / "deep", 2)
    assert names(target) == ["deep"] and names(tmp_path) == ["best"]


def test_atomic_directory_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "best").mkdir(parents=True)
    link = tmp_path / "best"
    try:
        link.symlink_to(tmp_path / "disk" / "best", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    for number in range(3):
        with atomic_directory(link) as temporary:
            fill(temporary, number)
    assert link.is_symlink() and (link / "a.txt").read_text() == "2"
    assert names(tmp_path / "disk") == ["best"] and names(tmp_path) == ["best", "disk"]


def test_atomic_directory_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "best").write_text("somebody's")
    with pytest.raises(PplcError, match="a file has this name"), atomic_directory(tmp_path / "best") as temporary:
        fill(temporary, 1)
    assert (tmp_path / "best").read_text() == "somebody's" and names(tmp_path) == ["best"]


def test_recover_between_the_renames(tmp_path: Path) -> None:
    (tmp_path / ".old-pplc-best").mkdir()
    fill(tmp_path / ".old-pplc-best", 1)
    assert recover_directory(tmp_path / "best") == tmp_path / "best"
    assert names(tmp_path) == ["best"] and (tmp_path / "best" / "b.txt").read_text() == "1"


def test_recover_after_the_renames(tmp_path: Path) -> None:
    for name, number in ((".old-pplc-best", 1), ("best", 2)):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, number)
    recover_directory(tmp_path / "best")
    assert names(tmp_path) == ["best"] and (tmp_path / "best" / "b.txt").read_text() == "2"


def test_recover_where_nothing_was(tmp_path: Path) -> None:
    recover_directory(tmp_path / "best")
    assert names(tmp_path) == []


WRITER = """
import sys
from pplc_cli.base.storage.files import atomic_directory
number = int(sys.argv[2])
while True:
    with atomic_directory(sys.argv[1]) as temporary:
        (temporary / "a.txt").write_text(str(number))
        (temporary / "b.txt").write_text(str(number))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_writer_leaves_a_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "last"
    rng = random.Random(0)
    number = 0
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, str(target), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()  # it has written at least once
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            finished = [int(text) for text in (line + process.stdout.read()).split()]
        folder = recover_directory(target)
        found = {path.name: path.read_text() for path in folder.iterdir()}
        assert set(found) == {"a.txt", "b.txt"} and found["a.txt"] == found["b.txt"]
        number = int(found["a.txt"])
        assert number in (finished[-1], finished[-1] + 1)  # what was reported as written is there
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["last"]


LIMITED = """
import resource, sys
from pathlib import Path
from pplc_cli.base.errors import PplcError
from pplc_cli.base.storage.files import atomic_directory, write_text
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(folder / "file.txt", "x" * 5000)
except PplcError as error:
    print(error)
try:
    with atomic_directory(folder / "best") as temporary:
        (temporary / "a.txt").write_text("x" * 5000)
except PplcError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file sizes")
def test_full_disk_is_reported_and_keeps_the_old(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "old")
    with atomic_directory(tmp_path / "best") as temporary:
        fill(temporary, 1)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert done.stdout.count("cannot write") == 2 and done.stdout.count("free some space") == 2
    assert (tmp_path / "file.txt").read_text() == "old" and (tmp_path / "best" / "a.txt").read_text() == "1"
    assert names(tmp_path) == ["best", "file.txt"]


def dead_writer() -> str:
    """The part of a temporary name that says who wrote it, of a process that has ended."""
    code = "from pplc_cli.base.processes.identity import process_identity; print(*process_identity(), sep='-')"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_leftovers_of_dead_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    dead, alive = dead_writer(), "-".join(map(str, process_identity()))
    (tmp_path / f"{TEMPORARY}{dead}-0").mkdir()
    fill(tmp_path / f"{TEMPORARY}{dead}-0", 1)
    (tmp_path / f"{TEMPORARY}{dead}-1.json").write_text("x")
    kept = [
        "keep.txt", ".tmp-1-theirs", ".tmp-notes", f"{TEMPORARY}notes", f"{TEMPORARY}a-b-c-d",
        f"{TEMPORARY}{alive}-0", f"{TEMPORARY}000000-1-1-0",
    ]  # fmt: skip
    for name in kept:
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(kept)
    for name in kept:
        os.utime(tmp_path / name, (1e9, 1e9))
    remove_leftovers(tmp_path)
    kept.remove(f"{TEMPORARY}000000-1-1-0")  # of another machine, and years old
    assert names(tmp_path) == sorted(kept)


def test_a_number_used_again_is_another_process(tmp_path: Path) -> None:
    machine, pid, start = process_identity()
    if not start:
        pytest.skip("this system does not tell when a process started")
    (tmp_path / f"{TEMPORARY}{machine}-{pid}-{start - 1}-0").write_text("x")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}{dead_writer()}-0").mkdir()
    write_text(tmp_path / "file.txt", "x")
    assert names(tmp_path) == ["file.txt"]


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".txt")
    write_text(target, "x")
    assert target.read_text() == "x"


WITH_UMASK = """
import os, sys, tempfile
from pathlib import Path
from pplc_cli.base.storage.files import atomic_directory, atomic_file
os.umask(int(sys.argv[2], 8))
def private(path):  # as a library does that writes a temporary file of its own
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    os.close(descriptor)
    os.replace(name, path)
with atomic_file(Path(sys.argv[1]) / "file") as temporary:
    private(temporary)
with atomic_directory(Path(sys.argv[1]) / "folder") as temporary:
    private(temporary / "file")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("002", 0o664), ("077", 0o600)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: str, mode: int) -> None:
    subprocess.run([sys.executable, "-c", WITH_UMASK, str(tmp_path), umask], check=True)
    for file in (tmp_path / "file", tmp_path / "folder" / "file"):
        assert file.stat().st_mode & 0o777 == mode


def test_the_refused_file_is_named_not_only_the_target(tmp_path: Path) -> None:
    refused = r"cannot write .*best: /elsewhere/\.cache: Permission denied"
    with pytest.raises(PplcError, match=refused), atomic_directory(tmp_path / "best"):
        raise PermissionError(13, "Permission denied", "/elsewhere/.cache")
    with pytest.raises(PplcError) as caught, atomic_directory(tmp_path / "best") as temporary:
        write_text(temporary / "folder is missing" / ("x" * 400), "x")
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'best'}: ") and TEMPORARY not in str(caught.value)


def test_a_reader_that_recovers_does_not_stop_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "best"
    with atomic_directory(target) as temporary:
        fill(temporary, 1)
    rename, interfered = Path.rename, list[Path]()

    def rename_then_read(self: Path, to: Path) -> Path:
        result = rename(self, to)
        if not interfered:
            interfered.append(recover_directory(target))  # between the two renames
        return result

    monkeypatch.setattr(Path, "rename", rename_then_read)
    with atomic_directory(target) as temporary:
        fill(temporary, 2)
    assert interfered and (target / "a.txt").read_text() == "2" and names(tmp_path) == ["best"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from pplc_cli.base.storage.files import disk_errors_named
for limit in (1000, 10000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        with disk_errors_named(Path(sys.argv[1]), 5000):
            raise RuntimeError("is.good() == false")
    except Exception as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file sizes")
def test_a_librarys_error_is_the_systems_if_the_disk_is_full(tmp_path: Path) -> None:
    found = subprocess.check_output([sys.executable, "-c", FULL_DISK, str(tmp_path)], text=True)
    assert found.split() == ["OSError", "RuntimeError"] and names(tmp_path) == []


def test_user_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert user_path("~/data") == tmp_path / "data"
    assert user_path("data\\set\\照片") == Path("data/set/照片")
    assert user_path(tmp_path) == tmp_path
    assert user_path("~no such user/x") == Path("~no such user/x")
    assert user_path("a\\" + "x" * 5000) == Path("a/" + "x" * 5000)


@pytest.mark.skipif(os.name == "nt", reason="a backslash is no part of a Windows name")
def test_user_path_keeps_a_real_backslash(tmp_path: Path) -> None:
    (tmp_path / "a\\b").mkdir()
    assert user_path(tmp_path / "a\\b") == tmp_path / "a\\b"


@pytest.mark.skipif(os.name == "nt", reason="there is no sh")
@pytest.mark.parametrize(
    "name", ["a b", "$HOME", "it's", "a;b", "`id`", "数据", "数据 集", "x&y", "*", "-o", "", "a\\b", "tab\t"]
)
def test_suggested_commands_mean_what_they_say(name: str) -> None:
    done = subprocess.run(["sh", "-c", f"printf %s {quoted(name)}"], capture_output=True, text=True, check=True)
    assert done.stdout == name


def test_plain_words_stay_unquoted() -> None:
    assert [quoted(word) for word in ("output/数据-1", "a=b,c")] == ["output/数据-1", "a=b,c"]
    words = ("C:\\my photos", "C:\\photos", "it's", "a&b")
    assert [quoted(word, windows=True) for word in words] == ['"C:\\my photos"', "C:\\photos", '"it\'s"', '"a&b"']
