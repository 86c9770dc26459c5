"""Archives from strangers: sizes are checked before anything is read."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from helpers.images import random_image, write_image
from pplc_cli.predict.inputs import tar
from pplc_cli.predict.inputs.count import count
from pplc_cli.predict.inputs.expand import Skipped, expand
from pplc_cli.predict.inputs.tar import read_tar


@pytest.fixture
def jpeg(tmp_path):
    write_image(tmp_path / "one.jpg", random_image(1))
    return (tmp_path / "one.jpg").read_bytes()


def header(name, size, format_=tarfile.GNU_FORMAT, **fields):
    """The blocks of a member's header."""
    member = tarfile.TarInfo(name)
    member.size = size
    for key, value in fields.items():
        setattr(member, key, value)
    return member.tobuf(format_)


def padded(data):
    return data + bytes(-len(data) % 512)


def write(path, *blocks):
    path.write_bytes(b"".join(blocks) + bytes(1024))
    return str(path)


@pytest.mark.parametrize("size", [-512, -1, -(1 << 40)])
def test_a_negative_size_ends_the_archive(tmp_path, jpeg, size):
    path = write(tmp_path / "x.tar", header("a.jpg", len(jpeg)), padded(jpeg), header("b.jpg", size))
    good, bad = read_tar(path)
    assert good.data == jpeg and bad.name == path and "damaged" in bad.error
    assert count([path], threading.Event()) is None


def test_a_negative_size_in_an_extended_header_ends_the_archive(tmp_path, jpeg):
    blocks = header("b.jpg", 0, tarfile.PAX_FORMAT, pax_headers={"size": "-512"})
    path = write(tmp_path / "x.tar", header("a.jpg", len(jpeg)), padded(jpeg), blocks)
    good, bad = read_tar(path)
    assert good.data == jpeg and "damaged" in bad.error


def test_a_sparse_member_is_refused_unread(tmp_path, jpeg):
    sparse = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(4 << 30), "GNU.sparse.name": "zeros.jpg"}
    blocks = header("zeros.jpg", 0, tarfile.PAX_FORMAT, pax_headers=sparse)
    path = write(tmp_path / "x.tar", blocks, header("a.jpg", len(jpeg)), padded(jpeg))
    zeros, good = read_tar(path)
    assert "sparse" in zeros.error and zeros.data is None and good.data == jpeg


def test_a_large_member_is_refused_unread(tmp_path, jpeg, monkeypatch):
    monkeypatch.setattr(tar, "MAX_ENCODED", 1 << 20)
    large = header("large.jpg", 3 << 20) + bytes(3 << 20)
    path = write(tmp_path / "x.tar", large, header("a.jpg", len(jpeg)), padded(jpeg))
    refused, good = read_tar(path)
    assert refused.error == "is 3 MB large, expected at most 1" and good.data == jpeg


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_a_long_name_is_not_read_whole(tmp_path, jpeg):
    """A name of 4 GB takes no memory; loading takes less than 500 MB."""
    name = header("././@LongLink", 4 << 30, type=tarfile.GNUTYPE_LONGNAME)
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(header("a.jpg", len(jpeg)) + padded(jpeg) + name)
        file.truncate(4 << 30)
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from pplc_cli.predict.inputs.tar import read_tar\n"
        "good, found = read_tar(sys.argv[1])\n"
        # Not ru_maxrss, which begins with the size of the process that started this one.
        "print(found.error, *re.findall(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "a name is too long" in done.stdout, done.stderr
    assert int(done.stdout.split()[-1]) < 500_000
    path.unlink()


def test_odd_names_are_names(tmp_path, jpeg):
    """A zero byte, line ends and a path out of the archive: nothing is written, and every name stays one name."""
    names = ["zero\0byte.jpg", "new\nline.jpg", "../../out.jpg", "/etc/abs.jpg", "猫" * 82 + ".jpg", "cr\r.jpg"]
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(jpeg), {"path": name}
            archive.addfile(member, io.BytesIO(jpeg))
    found = list(read_tar(str(tmp_path / "x.tar")))
    assert [source.data for source in found] == [jpeg] * len(names)
    assert [source.name.rpartition("x.tar/")[2] for source in found] == names


def test_members_that_are_no_images_are_counted(tmp_path, jpeg):
    blocks = [header(name, len(jpeg)) + padded(jpeg) for name in ("a.jpg", "b.xyz", "c.XYZ", "readme", ".hidden.xyz")]
    skipped = Skipped()
    found = list(expand([write(tmp_path / "x.tar", *blocks)], skipped=skipped))
    assert len(found) == 1 and str(skipped) == "2 .xyz, 1 without a suffix"


def test_standard_input_is_bounded(untrained, tmp_path):
    """An endless image ends with an error."""
    line = [sys.executable, "-m", "pplc_cli", "predict", "--model", str(untrained(0)), "--engine", "pplc", "-"]
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(line, stdin=endless, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr == "-: is larger than 200 MB\n"
