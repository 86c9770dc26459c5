"""Weights files: those that fit, those that do not, and those that would run code."""

from __future__ import annotations

import builtins
import collections
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pplc_cli.base.errors import DownloadError, ModelError
from pplc_cli.base.paddle import load_paddle
from pplc_cli.models.registry import build_network, find_network
from pplc_cli.models.weights.fit import fit_weights
from pplc_cli.models.weights.formats.read import read_weights
from pplc_cli.models.weights.official import fetch_official
from pplc_cli.models.weights.pretrained import load_pretrained

paddle = load_paddle()
SPEC = find_network("PPLCNet_x0_25")


def build(classes: int = 5):
    return build_network(SPEC.name, classes)


def arrays(network) -> dict[str, np.ndarray]:
    return {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}


def check_equal(network, expected, but=()) -> None:
    for key, value in arrays(network).items():
        if key not in but:
            assert np.array_equal(value, expected[key]), key


@pytest.fixture(scope="module")
def source():
    return build()


@pytest.fixture(scope="module")
def paddle_file(source, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.pdparams"
    paddle.save(source.state_dict(), str(path))
    return path


def pickled(folder: Path, value, protocol: int = 4) -> Path:
    path = folder / "w.pdparams"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def test_a_file_of_paddle_fits(source, paddle_file):
    network = build()
    assert not np.array_equal(arrays(network)["fc.weight"], arrays(source)["fc.weight"])
    assert load_pretrained(network, SPEC, str(paddle_file)) == (str(paddle_file), [])
    check_equal(network, arrays(source))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol_of_paddle(source, tmp_path, protocol):
    path = tmp_path / "w.pdparams"
    paddle.save(source.state_dict(), str(path), protocol=protocol)
    network = build()
    assert load_pretrained(network, SPEC, str(path))[1] == []
    check_equal(network, arrays(source))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_of_pickle(tmp_path, protocol):
    # ascontiguousarray and its transpose: C and Fortran order are pickled in different ways.
    value = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": ("name", np.arange(3)), "c": np.ones((2, 3)).T}
    result = read_weights(pickled(tmp_path, collections.OrderedDict(value), protocol))
    assert result.keys() == value.keys()
    assert np.array_equal(result["a"], value["a"]) and result["a"].dtype == np.float32
    assert np.array_equal(result["b"], [0, 1, 2]) and np.array_equal(result["c"], value["c"])


def test_pickles_of_numpy_1_and_2(tmp_path):
    """The official files were written with NumPy 1, whose modules have another name."""
    path = pickled(tmp_path, {"a": np.arange(3.0)}, 2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    data = path.read_bytes()
    other = data.replace(new, old) if new in data else data.replace(old, new)
    assert other != data
    path.write_bytes(other)
    assert np.array_equal(read_weights(path)["a"], [0, 1, 2])


def test_other_number_of_classes(source, paddle_file):
    network = build(3)
    before = arrays(network)
    assert load_pretrained(network, SPEC, str(paddle_file))[1] == ["fc.bias", "fc.weight"]
    check_equal(network, arrays(source), but=("fc.weight", "fc.bias"))
    for key in ("fc.weight", "fc.bias"):
        assert np.array_equal(arrays(network)[key], before[key])


def test_faults_are_named(source):
    weights = arrays(source)
    del weights["last_conv.weight"]
    weights["extra.weight"] = np.zeros(1, np.float32)
    weights["conv1.conv.weight"] = np.zeros((8, 3, 5, 5), np.float32)
    network = build()
    before = arrays(network)
    with pytest.raises(ModelError) as caught:
        fit_weights(network, weights, "the file")
    text = str(caught.value)
    assert text.startswith("the file does not fit")
    assert "last_conv.weight is missing" in text and "extra.weight is unknown" in text
    assert "conv1.conv.weight has shape [8, 3, 5, 5], expected [8, 3, 3, 3]" in text
    check_equal(network, before)  # nothing is copied
    with pytest.raises(ModelError, match=r"and \d+ more"):
        fit_weights(network, {}, "the file")


def test_another_width_does_not_fit(paddle_file):
    with pytest.raises(ModelError, match="does not fit"):
        load_pretrained(build_network("PPLCNet_x0_35", 5), find_network("PPLCNet_x0_35"), str(paddle_file))


@pytest.mark.parametrize("shape", [(640, 4), (1280,), (1280, 4, 1), ()])
def test_a_classifier_for_other_features_does_not_fit(source, shape):
    weights = arrays(source)
    weights["fc.weight"] = np.zeros(shape, np.float32)
    with pytest.raises(ModelError, match=r"fc\.weight has shape"):
        fit_weights(build(), weights, "the file")


def test_safetensors(source, tmp_path):
    save_file(arrays(source), tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path):  # the file, or a folder like best_model
        network = build()
        assert load_pretrained(network, SPEC, str(path)) == (str(path), [])
        check_equal(network, arrays(source))
    half = {key: value.astype(np.float16) for key, value in arrays(source).items()}
    save_file(half, tmp_path / "half.safetensors")
    network = build()
    load_pretrained(network, SPEC, str(tmp_path / "half.safetensors"))
    check_equal(network, half)


def test_damaged_safetensors(source, tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file(arrays(source), whole)
    path = tmp_path / "model.safetensors"
    for data in (b"", b"text", whole.read_bytes()[:-1], whole.read_bytes()[:100], b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(ModelError) as caught:
            read_weights(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_safetensors_with_types_that_numpy_lacks(tmp_path, kind, size):
    header = f'{{"a":{{"dtype":"{kind}","shape":[2],"data_offsets":[0,{2 * size}]}}}}'.encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2 * size))
    with pytest.raises(ModelError, match="save it as float32"):
        read_weights(path)
    if kind == "BF16" and importlib.util.find_spec("ml_dtypes"):
        importlib.import_module("ml_dtypes")  # as onnx does; then NumPy knows the name
        with pytest.raises(ModelError, match="save it as float32"):
            read_weights(path)


def test_missing_files(tmp_path):
    for path in (tmp_path / "none.pdparams", tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(ModelError, match="no such weights file"):
            read_weights(path)


class Runs:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CALLS = {
    "system": lambda marker: Runs(os.system, f"touch {marker}"),
    "eval": lambda marker: Runs(builtins.eval, f"open({str(marker)!r}, 'w')"),
    "exec": lambda marker: Runs(builtins.exec, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: Runs(builtins.open, str(marker), "w"),
    "getattr": lambda marker: Runs(builtins.getattr, os.PathLike, "__fspath__"),
    "Popen": lambda marker: Runs(subprocess.Popen, ["touch", str(marker)]),
    "load": lambda marker: Runs(np.load, str(marker), None, True),
    "fromfile": lambda marker: Runs(np.fromfile, str(marker)),
    "bytearray": lambda marker: Runs(bytearray, 1 << 40),
    "__import__": lambda marker: Runs(builtins.__import__, "os"),
}
PLACES = {
    "alone": lambda call: call,
    "value": lambda call: {"fc.weight": call},
    "key": lambda call: {("a", call): np.zeros(2)},
    "nested": lambda call: {"a": np.zeros(2), "b": [({"c": [call]},)]},
    "inside an array": lambda call: {"a": np.array([call, 1], dtype=object)},
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_run(tmp_path, name, place, protocol):
    marker = tmp_path / "marker"
    path = pickled(tmp_path, PLACES[place](CALLS[name](marker)), protocol)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert str(path) in text and "is refused" in text and name in text
    assert not marker.exists()


def test_the_danger_is_real(tmp_path):
    """Python's own pickle runs what test_nothing_is_run refuses."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(CALLS["system"](marker)))
    assert marker.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # a call written by hand, protocol 0
        b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93.",  # a dotted name below an allowed module
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"(S'true'\nios\nsystem\n.",  # the opcode INST
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"c_codecs\ndecode\n.",
    ],
)
def test_hand_written_streams_are_refused(tmp_path, stream):
    path = tmp_path / "w.pdparams"
    path.write_bytes(stream)
    with pytest.raises(ModelError, match="is refused"):
        read_weights(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is text\n",
        b"<html>404</html>",
        bytes(1000),
        b"\x80\x04.",
        b"PK\x03\x04zip",
        b"Pid\n.",
        b"\x82\x01.",
    ],
)
def test_files_that_are_no_weights(tmp_path, content):
    path = tmp_path / "w.pdparams"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_bytes_are_never_interpreted_as_pointers(tmp_path):
    """NumPy lets a pickled dtype name its own flags; with those of objects removed, bytes would become addresses."""
    stream = pickle.dumps({"a": np.arange(2)}, 2)
    assert b"i8" in stream
    path = tmp_path / "w.pdparams"
    path.write_bytes(stream.replace(b"i8", b"O8"))
    with pytest.raises(ModelError, match="it contains object data, expected numbers"):
        read_weights(path)


def test_byte_order(tmp_path):
    path = pickled(tmp_path, {"a": np.arange(3, dtype=">f4"), "b": np.arange(3, dtype="<u2")})
    result = read_weights(path)
    assert result["a"].tolist() == result["b"].tolist() == [0, 1, 2]
    assert (result["a"].dtype, result["b"].dtype) == (np.dtype(">f4"), np.dtype("<u2"))


def test_truncated(paddle_file, tmp_path):
    data = paddle_file.read_bytes()
    path = tmp_path / "w.pdparams"
    for length in (1, 2, 10, 100, 1000, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match="is the download complete"):
            read_weights(path)


def test_a_memo_number_takes_no_memory(tmp_path):
    """Eight bytes that would make Python allocate 64 GB."""
    path = tmp_path / "w.pdparams"
    for stream in (b"\x80\x02}r\xff\xff\xff\xff.", b"(dp4294967295\n."):
        path.write_bytes(stream)
        with pytest.raises(ModelError, match="not a readable"):
            read_weights(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([np.zeros(2)], "contains a list, expected a dictionary of arrays"),
        ({}, "contains no arrays"),
        ({"a": 1, 2: np.zeros(2)}, "contains no arrays"),
        ({"a": np.array(["x"])}, "it contains <U1 data, expected numbers"),
        ({"a": np.array([None])}, "it contains object data, expected numbers"),
        ({"a": np.zeros(2, complex)}, "it contains complex128 data, expected numbers"),
    ],
)
def test_other_contents(tmp_path, value, words):
    with pytest.raises(ModelError) as caught:
        read_weights(pickled(tmp_path, value))
    assert words in str(caught.value)


SMALL = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.bias": ("fc_0.b_0", np.arange(2))}
SEEDS = [pickle.dumps(SMALL, protocol) for protocol in (0, 2, 4)]


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        result = read_weights(path)
    except ModelError as error:
        assert str(path) in str(error)
    else:
        assert result and all(isinstance(k, str) and v.dtype.kind in "fiu" for k, v in result.items())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_pickles(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[position] = data.draw(st.integers(0, 255))
        else:
            content[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not content:
            break
    read_or_refuse(tmp_path / "w.pdparams", bytes(content))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_random_bytes(tmp_path, content):
    read_or_refuse(tmp_path / "w.pdparams", content)
    read_or_refuse(tmp_path / "w.safetensors", content)


def test_the_offline_error_lists_remedies(tmp_path, monkeypatch):
    monkeypatch.setenv("PPLC_CACHE", str(tmp_path))
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    with pytest.raises(DownloadError) as caught:
        load_pretrained(build(), SPEC, "imagenet")
    target = tmp_path / "PPLCNet_x0_25_pretrained.pdparams"
    for words in ("PPLC_OFFLINE", str(target), "PPLC_MIRROR", "HTTPS_PROXY", "--pretrained FILE", "--pretrained none"):
        assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_offline_with_the_file_in_place(source, paddle_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PPLC_CACHE", str(tmp_path))
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    target = tmp_path / "PPLCNet_x0_25_pretrained.pdparams"
    target.write_bytes(paddle_file.read_bytes())
    network = build()
    assert load_pretrained(network, SPEC, "imagenet") == (str(target), [])
    check_equal(network, arrays(source))


def test_weights_that_were_never_published(monkeypatch):
    monkeypatch.setenv("PPLC_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"no official imagenet_ssld weights of PPLCNet_x2_0; use .*: imagenet$"):
        fetch_official(find_network("PPLCNet_x2_0"), "imagenet_ssld")


def levels(count: int, wrap: bytes) -> bytes:
    """A pickle whose memo 0 is a tuple of tuples, which takes 2 ** count steps to hash, to compare or to print."""
    build = b"\x80\x02)q\x00" + b"".join(b"0h\x00h\x00\x86q\x00" for _ in range(count))
    return build + b"0" + wrap


REPEATED = {
    "a key that takes for ever to hash": levels(60, b"}h\x00K\x01s."),
    "the same in a set": levels(60, b"\x8f(h\x00\x90."),
    "the same in a frozen set": levels(60, b"(h\x00\x91."),
    "the same in a call": levels(60, b"ccollections\nOrderedDict\n]h\x00K\x01\x86a\x85R."),
    "the same as a data type": levels(60, b"cnumpy\ndtype\nh\x00\x85R."),
    "the same as a function": levels(60, b"h\x00)R."),
    "keys of one hash": b"\x80\x02}("
    + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"K\x00" for n in range(30_000))
    + b"u.",
    "a list copied for ever": b"\x80\x02]q\x00(" + b"K\x00" * 30_000 + b"e0cbuiltins\nlist\nq\x010]"
    b"(" + b"h\x01h\x00\x85R" * 30_000 + b"e.",
    "a text encoded for ever": b"\x80\x02c_codecs\nencode\nq\x00X\x40\x42\x0f\x00" + b"x" * 1_000_000 + b"q\x01]("
    b"" + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 3000 + b"e.",
    "a slow codec": b"\x80\x02c_codecs\nencode\nX\x40\x42\x0f\x00"
    + b"x" * 1_000_000
    + b"X\x08\x00\x00\x00punycode\x86R.",
}
BOUNDED = """
import re, resource, sys
from pathlib import Path
import numpy
from pplc_cli.base.errors import ModelError
from pplc_cli.models.weights.formats.read import read_weights
def peak():
    # In kB; not ru_maxrss, which begins with the size of the process that started this one.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for path in sys.argv[1:]:
    try:
        read_weights(Path(path))
    except ModelError as error:
        print(error)
print(peak() - before)
"""


def read_bounded(*paths: Path) -> list[str]:
    """Read files in a process that may take 20 seconds; return the errors and the growth of its memory in kB."""
    command = [sys.executable, "-c", BOUNDED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.splitlines()


def test_work_and_memory_are_bounded(tmp_path):
    paths = []
    for name, stream in REPEATED.items():
        paths.append(tmp_path / f"{name}.pdparams")
        paths[-1].write_bytes(stream)
    *errors, memory = read_bounded(*paths)
    assert len(errors) == len(REPEATED)
    for path, error in zip(paths, errors):
        assert str(path) in error
    assert int(memory) < 100_000


class SameBytes:
    """Pickles as an array of bytes that several of these share."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __reduce__(self):
        function, arguments, (version, _, dtype, order, _) = np.zeros(0, np.float32).__reduce__()
        return function, arguments, (version, (len(self.raw) // 4,), dtype, order, self.raw)


def test_one_array_a_thousand_times(tmp_path):
    """Small in the file, 4 GB in memory."""
    raw = bytes(4_000_000)
    path = pickled(tmp_path, {str(number): SameBytes(raw) for number in range(1000)})
    assert path.stat().st_size < 5_000_000
    error, memory = read_bounded(path)
    assert "uses the same data again and again" in error
    assert int(memory) < 100_000
    path = pickled(tmp_path, {str(number): SameBytes(raw) for number in range(2)})  # shared weights are usual
    assert read_weights(path).keys() == {"0", "1"}
