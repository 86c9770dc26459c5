"""Arguments of pplc predict become images: lazily, in a fixed order, and with an error for each damaged file."""

from __future__ import annotations

import gzip
import io
import os
import shlex
import subprocess
import sys
import tarfile
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.images import random_image, write_image
from pplc_cli.base.errors import ImageError, PredictError
from pplc_cli.data.image_files import list_files
from pplc_cli.predict.inputs.count import count
from pplc_cli.predict.inputs.expand import Kind, Skipped, classify, expand


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(["b/2.jpg", "b/猫 10.png", "a.jpg", "B.JPG", ".hidden/x.jpg", "b/.x.jpg"]):
        write_image(tmp_path / "in" / name, random_image(number))
    (tmp_path / "in" / "notes.txt").write_text("no list of images")
    return tmp_path / "in"


def names(*arguments):
    return [source.name for source in expand(map(str, arguments))]


def write_tar(path, mode, files):
    with tarfile.open(path, mode) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def jpegs(tmp_path):
    """12 encoded images with their names in archives."""
    found = []
    for number in range(12):
        write_image(tmp_path / "one.jpg", random_image(number))
        found.append((f"photos 照/{number:02d}.jpg", (tmp_path / "one.jpg").read_bytes()))
    return found


def test_folders_have_the_order_of_split(folder):
    expected = [folder / name for name in ("B.JPG", "a.jpg", "b/2.jpg", "b/猫 10.png")]
    assert names(folder) == [str(path) for path in expected]
    assert [path for path in list_files(folder) if path.suffix != ".txt"] == expected
    (folder / "b" / "loop").symlink_to(folder)
    assert len(names(folder)) == 4


def test_each_argument_has_one_kind(folder):
    (folder / "real[1].jpg").write_bytes(b"x")
    (folder / "shards.tar").mkdir()
    kinds = {
        "-": Kind.STDIN,
        "http://host/list.txt": Kind.URL,
        f"{folder}/b": Kind.FOLDER,
        f"{folder}/shards.tar": Kind.FOLDER,
        f"{folder}/*.tar": Kind.GLOB,
        f"{folder}/real[1].jpg": Kind.FILE,
        f"{folder}/notes.txt": Kind.LIST,
        f"{folder}/gone.txt": Kind.FILE,
        f"{folder}/gone.TAR.gz": Kind.TAR,
        f"{folder}/clip.MP4": Kind.VIDEO,
        f"{folder}/a.jpg": Kind.FILE,
    }
    assert {text: classify(text).kind for text in kinds} == kinds


def test_the_count_is_the_number_of_images(folder, jpegs, tmp_path):
    write_tar(tmp_path / "in" / "shard.tar", "w", jpegs)
    (folder / "list.txt").write_text("a.jpg\n\nb/2.jpg 7\nhttp://host/x.jpg\n")
    for argument in (folder, folder / "*", folder / "b/*", folder / "list.txt", folder / "shard.tar", folder / "a.jpg"):
        assert count([str(argument)], threading.Event()) == len(names(argument)), argument
    for unknown in ("-", folder / "clip.mp4", folder / "shard.tar.gz"):
        assert count([str(unknown)], threading.Event()) is None


def test_arguments_are_read_one_after_the_other(folder):
    sources = expand([str(folder), str(folder / "nowhere-*.jpg")])
    assert len(list(islice(sources, 4))) == 4
    with pytest.raises(PredictError, match="matches no file"):
        next(sources)


def test_lists_may_hold_class_ids_urls_and_odd_names(folder, tmp_path):
    odd = b"\xffname.jpg"
    text = "\ufeffa.jpg\r\n\r\nb/2.jpg 7\nb\\2.jpg\nhttp://host/x.jpg\nmissing 3.jpg\n".encode() + b"x" * (1 << 16)
    (folder / "list.txt").write_bytes(text + b"\n" + odd + b"\n")
    got = names(folder / "list.txt")
    here = str(folder)
    expected = [f"{here}/a.jpg", f"{here}/b/2.jpg", f"{here}/b/2.jpg", "http://host/x.jpg", f"{here}/missing 3.jpg"]
    assert got[:5] == expected and got[6].encode("utf-8", "surrogateescape").endswith(odd)
    (folder / "utf16.txt").write_text("a.jpg", encoding="utf-16")
    with pytest.raises(PredictError, match="expected a list of paths in UTF-8"):
        names(folder / "utf16.txt")


def test_lists_of_training_are_read(folder):
    """With TABs, and in the encoding of Chinese Windows, also where no byte is valid UTF-8."""
    (folder / "tabs.txt").write_text("a.jpg\t0\nb/猫 10.png\t1\n", encoding="utf-8")
    (folder / "gbk.txt").write_bytes("b\\猫 10.png 1\r\nb/猫 10.png\t1\r\na.jpg 0\r\n".encode("gb18030"))
    cat, a = f"{folder}/b/猫 10.png", f"{folder}/a.jpg"
    assert names(folder / "tabs.txt") == [a, cat]
    assert names(folder / "gbk.txt") == [cat, cat, a]
    odd = os.fsencode(folder / "b") + b"/\xc3\xa8\xb0.jpg"  # neither UTF-8 nor what GB18030 makes of it
    write_image(folder / "b" / "x.jpg", random_image(1))
    (folder / "b" / "x.jpg").rename(os.fsdecode(odd))
    (folder / "odd.txt").write_bytes(b"b/" + odd.rpartition(b"/")[2] + b"\n")
    assert [os.fsencode(name) for name in names(folder / "odd.txt")] == [odd]


def test_globs_in_folders_with_brackets(tmp_path):
    images = [tmp_path / name for name in ("ds [v1]/a/1.jpg", "ds [v1]/b/2.jpg", "ds1/c/3.jpg", "x[3]/ds [v1]/4.jpg")]
    for path in images:
        write_image(path, random_image(1))
    first, second, third, fourth = map(str, images)
    assert names(tmp_path / "ds [v1]" / "*" / "*.jpg") == [first, second]
    assert names(tmp_path / "ds [v1]" / "[ab]" / "?.jpg") == [first, second]
    assert names(tmp_path / "ds[12]" / "*" / "*.jpg") == [third]  # a pattern, as there is no such folder
    assert names(tmp_path / "x[3]" / "ds [v1]" / "*.jpg") == [fourth]
    assert names(tmp_path / "*" / "ds [v1]" / "*.jpg") == [fourth]
    pattern = str(tmp_path / "ds [v1]" / "*" / "*.jpg")
    assert count([pattern], threading.Event()) == 2


def test_files_that_are_skipped_are_counted(folder, tmp_path):
    for name in ("b/1.XYZ", "b/2.xyz", "photo.psd", "b/README", "b/a.long-word-at-the-end"):
        (folder / name).write_bytes(b"x")
    skipped = Skipped()
    assert len(list(expand([str(folder)], skipped=skipped))) == 4
    assert str(skipped) == "2 .xyz, 2 without a suffix, 1 .txt, 1 .psd"
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.psd").write_bytes(b"x")
    with pytest.raises(PredictError, match=r"holds no images, only other files: 1 \.psd"):
        names(tmp_path / "only")


def test_closed_and_empty_standard_input(untrained):
    line = [sys.executable, "-m", "pplc_cli", "predict", "--model", str(untrained(0)), "--engine", "pplc", "-"]
    for redirect, message in (("<&-", "standard input is closed"), ("</dev/null", "standard input is empty")):
        command = f"{shlex.join(line)} {redirect}"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, executable="/bin/sh")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Error: -: {message}; expected an image's bytes or a list of paths\n"


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")]
)
def test_images_of_archives_are_named_after_both(jpegs, tmp_path, suffix, mode):
    files = [("readme.md", b"x"), *jpegs, ("photos 照/._00.jpg", b"x")]
    path = write_tar(tmp_path / f"shard{suffix}", mode, files)
    sources = list(expand([str(path)]))
    assert [(s.name, s.data) for s in sources] == [(f"{path}/{name}", data) for name, data in jpegs]


def test_globs_and_lists_may_name_archives(jpegs, tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"photos-{number:02d}.tar", "w", jpegs[4 * number : 4 * number + 4])
    expected = [f"{tmp_path}/photos-{n // 4:02d}.tar/{name}" for n, (name, _) in enumerate(jpegs)]
    assert names(tmp_path / "photos-*.tar") == expected
    (tmp_path / "shards.txt").write_text("photos-00.tar\nphotos-01.tar\nphotos-02.tar\n")
    assert names(tmp_path / "shards.txt") == expected


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), st.floats(0, 1, exclude_max=True))
def test_a_cut_archive_has_an_error(jpegs, tmp_path, compressed, share):
    whole = write_tar(tmp_path / "whole.tar", "w", jpegs).read_bytes()
    end = whole.rstrip(b"\0")  # a cut in the zeros at the end loses no image
    content = gzip.compress(whole, 1) if compressed else end
    path = tmp_path / "cut.tar"
    path.write_bytes(content[: int(len(content) * share)])
    *good, last = expand([str(path)])
    assert [s.data for s in good] == [data for _, data in jpegs[: len(good)]]
    assert last.name == str(path) and "damaged" in last.error


@pytest.mark.parametrize("place", [0, 3])
def test_a_damaged_header_is_an_error_and_the_next_archive_is_read(jpegs, tmp_path, place):
    path = write_tar(tmp_path / "bad.tar", "w", jpegs)
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        start = archive.getmembers()[place].offset
    data[start + 150] ^= 0xFF
    path.write_bytes(data)
    write_tar(tmp_path / "good.tar", "w", jpegs)
    sources = list(expand([str(path), str(tmp_path / "good.tar"), str(tmp_path / "none.tar")]))
    assert [s.name for s in sources if s.error] == [str(path), str(tmp_path / "none.tar")]
    assert sum(s.error is None for s in sources) == place + len(jpegs)


def test_links_and_empty_archives_have_errors(tmp_path, jpegs):
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        member = tarfile.TarInfo("link.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    write_tar(tmp_path / "empty.tar", "w", [("x.txt", b"")])
    link, empty = expand([str(tmp_path / "links.tar"), str(tmp_path / "empty.tar")])
    assert "is a link" in link.error and "holds no images" in empty.error
    with pytest.raises(ImageError, match="is a link"):
        link.decode()


def write_video(path, frames=20, rate=10, rotated=0):
    """Write frames that become brighter, with a red upper half."""
    av = pytest.importorskip("av", reason="the package av is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if rotated:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this version of av cannot write rotated videos")
            stream.set_display_rotation(rotated)
        for number in range(frames):
            image = np.full((48, 64, 3), 10 * number % 250, np.uint8)
            image[:24, :, 0] = 250
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mov", ".mkv"])
def test_frames_are_named_by_their_time(tmp_path, suffix):
    path = write_video(tmp_path / f"片 clip{suffix}")
    sources = list(expand([str(path)]))
    assert [s.name for s in sources] == [f"{path}#t={n / 10:.3f}" for n in range(20)]
    for number, source in enumerate(sources):
        pixels = source.decode()
        assert pixels.shape == (48, 64, 3) and abs(int(pixels[40, 30, 1]) - 10 * number) < 12
        assert pixels[5, 30, 0] > 220
    every = expand([str(path)], every=0.5)
    assert [s.name.rpartition("=")[2] for s in every] == ["0.000", "0.500", "1.000", "1.500"]


def test_rotated_videos_are_upright(tmp_path):
    path = write_video(tmp_path / "rotated.mp4", frames=3, rotated=90)
    pixels = next(expand([str(path)])).decode()
    # Rotated counterclockwise, the red upper half is on the left.
    assert pixels.shape == (64, 48, 3) and pixels[30, 5, 0] > 220 > pixels[30, 40, 0]


def test_damaged_videos_have_errors(tmp_path):
    path = write_video(tmp_path / "cut.avi", frames=60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    (tmp_path / "none.mp4").write_bytes(b"no video at all")
    *_, cut = sources = list(expand([str(path), str(tmp_path / "none.mp4"), str(tmp_path / "gone.mkv")]))
    assert "no such file" in cut.error
    (none,) = (s for s in sources if s.name == str(tmp_path / "none.mp4"))
    assert "is damaged or not a video" in none.error


def test_standard_input_may_be_a_list_or_an_image(pplc, untrained, folder):
    model = ["predict", "--model", str(untrained(0)), "--json", "--engine", "pplc", "-"]
    listed = pplc(*model, stdin=b"a.jpg\nb/2.jpg\n" * 30, cwd=folder).stdout.splitlines()
    given = pplc(*model, stdin=(folder / "a.jpg").read_bytes()).stdout.splitlines()
    assert len(listed) == 60 and len(given) == 1
    assert listed[0].partition('"label"')[2] == given[0].partition('"label"')[2] != ""


def test_a_table_names_its_images_in_a_column(tmp_path: Path) -> None:
    for name in ("a, b.png", "c.png"):
        write_image(tmp_path / "photos" / name, random_image(0, (8, 8)))
    table = tmp_path / "photos" / "table.csv"
    table.write_text('label,file name\nx,"a, b.png"\ny,c.png\n', encoding="utf-8")
    names = [Path(source.name).name for source in expand([str(table)])]
    assert names == ["a, b.png", "c.png"]
