"""The web service and the notebook of docs/python-api.md, run as their users run them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers.commands import ROOT
from helpers.tutorial import write_tutorial
from pplc_cli import split_dataset


def block_after(comment: str) -> str:
    """The Python block of the guide that follows a comment."""
    text = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(comment)} -->\n```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run the service of a folder's ``service.py``; the address that it listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while "Uvicorn running" not in (folder / "log").read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text(encoding="utf-8")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/classify"
    finally:
        process.terminate()
        process.wait(30)


def test_the_web_service_answers(tmp_path: Path, untrained: Callable[[int], Path]) -> None:
    for name in ("fastapi", "multipart", "uvicorn"):
        pytest.importorskip(name, reason=f"the example needs {name}")
    code = block_after("service.py").replace("output/pplcnet-pandatiger/inference_model", untrained(0).as_posix())
    (tmp_path / "service.py").write_text(code, encoding="utf-8")
    write_tutorial(tmp_path)
    image = (tmp_path / "img.jpg").read_bytes()
    with served(tmp_path) as url, httpx.Client(trust_env=False, timeout=60) as client:

        def ask(content: bytes, name: str = "photo.jpg") -> httpx.Response:
            return client.post(url, files={"image": (name, content)})

        answer = ask(image)
        assert answer.status_code == 200
        found = answer.json()
        assert (
            len(found["top"]) == 2 and found["top"][0] == [found["label"], found["score"]] and 0 < found["score"] <= 1
        )
        with ThreadPoolExecutor(4) as pool:
            assert {other.text for other in pool.map(ask, [image] * 12)} == {answer.text}
        broken = ask(b"no image at all", "notes.txt")
        assert broken.status_code == 422 and broken.json()["detail"].startswith("notes.txt is not an image")
        assert ask(bytes(20_000_001)).status_code == 413
        assert client.post(url).status_code == 422
        assert ask(image).text == answer.text


@pytest.mark.parametrize(
    "widgets", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["with ipywidgets", "without ipywidgets"]
)
def test_the_notebook_cell_runs(tmp_path: Path, widgets: bool) -> None:
    for name in ("nbclient", "nbformat", "ipykernel", *(["ipywidgets"] if widgets else [])):
        pytest.importorskip(name, reason=f"the example needs {name}")
    import nbclient
    import nbformat

    write_tutorial(tmp_path)
    split_dataset(tmp_path / "datasets" / "pandatiger")
    hide = [] if widgets else ["import sys; sys.modules['ipywidgets'] = None"]
    cells = [nbformat.v4.new_code_cell(text) for text in [*hide, "%matplotlib inline", block_after("notebook")]]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs: list[Any] = notebook.cells[-1].outputs
    data = [output.get("data", {}) for output in outputs]
    assert any("image/png" in each for each in data)
    text = json.dumps(data, ensure_ascii=False) + "".join(output.get("text", "") for output in outputs)
    assert all(f"epoch {number}/5" in text for number in range(1, 6))
    assert re.search(r"\[\('(panda|tiger)', ", text)
    assert "Traceback" not in text and "Warning" not in text
