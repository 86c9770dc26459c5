"""Mutated weights files: each gives arrays or one line of an error, in bounded time and memory, and runs nothing.

By hand, with more files: ``PPLC_FUZZ=5000 pytest tests/fuzz/test_fuzz_weights.py -m slow -s``.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from helpers.networks import arrays, random_network
from helpers.onnx_network import onnx_model
from helpers.torch_files import Storage, Tensor, fake_torch, write
from pplc_cli.models.options import ModelOptions

CASES = int(os.environ.get("PPLC_FUZZ", "100"))  # of each kind
SECONDS = 10  # of CPU, for a file
MEMORY = 512 << 20  # that a file may take on top of what Python and its packages take

# Reads the files, each in a forked child, and prints what came of each: read, refused, or how it failed.
READER = """
import os, resource, sys
from collections import Counter
from pathlib import Path
from pplc_cli.base.errors import ModelError
from pplc_cli.models.weights.formats.onnx_reader import read_graph
from pplc_cli.models.weights.formats.read import read_weights
from pplc_cli.models.families import pplcnet
import onnx, zipfile

seconds, memory, *paths = sys.argv[1:]
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.", "pickle.find_class", "socket.", "ctypes.")

def forbid(event, arguments):
    if event.startswith(FORBIDDEN):
        os.write(2, f"ran {event} {arguments}".encode())
        os._exit(3)

def read(path):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(memory)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    try:
        sys.addaudithook(forbid)
        (read_graph if path.endswith(".onnx") else read_weights)(Path(path))
    except ModelError as error:
        text = str(error)
        return 1 if len(text) < 2000 and text.count(chr(10)) == 0 and path in text else 4
    return 0

for path in paths:
    pid = os.fork()
    if pid == 0:
        code = 5
        try:
            code = read(path)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), path)
"""


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Change, cut, insert, repeat or move a few parts."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        # Structure is at the beginning of pickles and safetensors, and at the end of archives.
        position = min(int(rng.paretovariate(0.5)), len(data)) - 1 if rng.random() < 0.5 else rng.randrange(len(data))
        position = len(data) - 1 - position if rng.random() < 0.3 else position
        kind, size = rng.randrange(6), rng.choice((1, 2, 4, 8, 100))
        if kind == 0:
            data[position] = rng.randrange(256)
        elif kind == 1:
            data[position] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[position : position + size] = rng.choice((b"", b"\0" * size, b"\xff" * size, b"\x7f" * size))
        elif kind == 3:
            data[position:position] = data[position : position + size] * rng.choice((1, 3, 50))
        elif kind == 4:
            data[position:position] = rng.randbytes(size)
        else:
            del data[position + 1 :]
        if not data:
            break
    return bytes(data)


def repacked(archive: bytes, rng: random.Random) -> bytes:
    """An archive that is whole, with a mutated pickle."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutated(content, rng) if name.endswith("data.pkl") else content)
    return packed.getvalue()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> dict[str, list[bytes]]:
    """Whole files by kind."""
    small = {"conv.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "fc.bias": ("fc_0.b_0", np.arange(5))}
    folder = tmp_path_factory.mktemp("seeds")
    one, other = Storage("FloatStorage", "7", np.arange(60)), Storage("LongStorage", "8", [5, 6])
    tensors = {"a": Tensor(one, 6, (3, 4), (8, 2)), "b": Tensor(one, 0, (60,), (1,)), "c": Tensor(other, 1, (), ())}
    with pytest.MonkeyPatch.context() as patch:
        torch = fake_torch(patch)
        zipped, rows = (
            write(folder / f"{new}.pth", {"state_dict": tensors}, [one, other], torch, new).read_bytes()
            for new in (True, False)
        )
    network = random_network(options=ModelOptions(last_conv=False))
    return {
        "pdparams": [pickle.dumps(small, protocol) for protocol in (0, 2, 4, 5)],
        "zip.pth": [zipped],
        "rows.pth": [rows],
        "repacked.pth": [zipped],
        "safetensors": [save({"conv.weight": np.arange(12, dtype=np.float32)}, {"origin": "x"}), save(arrays(network))],
        "onnx": [onnx_model(network).SerializeToString()],
    }


def run(paths: list[Path]) -> Counter[int]:
    """Read the files; the counts of read ones (0) and refused ones (1); anything else fails."""
    command = [sys.executable, "-c", READER, str(SECONDS), str(MEMORY), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 2 * len(paths))
    ends = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert len(ends) == len(paths), done.stderr
    bad = [end for end in ends if end[0] not in ("0", "1")]
    assert not bad, (bad, done.stderr)
    return Counter(int(code) for code, _ in ends)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pdparams", "zip.pth", "rows.pth", "repacked.pth", "safetensors", "onnx"])
def test_mutated_weights(seeds, tmp_path, kind):
    whole = tmp_path / f"whole.{kind}"
    whole.write_bytes(seeds[kind][0])
    assert run([whole]) == {0: 1}
    paths = []
    for number in range(CASES):
        rng = random.Random(f"{kind} {number}")
        content = rng.choice(seeds[kind])
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(repacked(content, rng) if kind == "repacked.pth" else mutated(content, rng))
        paths.append(path)
    counts = run(paths)
    print(f"{kind}: {counts[0]} read, {counts[1]} refused, of {CASES}")
    assert counts[1] > CASES // 3
