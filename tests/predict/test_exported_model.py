"""inference.yml is checked: sizes, numbers of steps and of labels are bounded, and labels fit the network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from pplc_cli.base.errors import PredictError
from pplc_cli.kernels import unsupported
from pplc_cli.kernels.graph.paddle_reader import read_paddle
from pplc_cli.predict.engines.installed import installed
from pplc_cli.predict.exported_model import read_exported
from pplc_cli.predict.predictor import Predictor


@pytest.fixture
def copied(untrained, tmp_path):
    """A copy of an exported folder that a test may change."""
    return Path(shutil.copytree(untrained(0), tmp_path / "export"))


def refusal(folder: Path) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(PredictError) as caught:
        read_exported(folder)
    text = str(caught.value)
    assert "\n" not in text and "inference.yml" in text and len(text) < 700
    return text


def content_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "inference.yml").read_text("utf-8"))


def write(folder: Path, content: object) -> None:
    (folder / "inference.yml").write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8")


def nested(levels: int, first: str, line: str) -> str:
    return "\n".join([first, *(line.format(i, ", ".join([f"*a{i - 1}"] * 10)) for i in range(1, levels))])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "a: \0",
        "a: !!python/object/apply:os.getcwd []",
        nested(12, "a0: &a0 [x]", "a{0}: &a{0} [{1}]"),
        "short: &a [*a]",
        "PostProcess: {Topk: {label_list: [a]}}\nPreProcess: {transform_ops: [3]}",
    ],
)
def test_other_yaml_is_refused(copied, text):
    (copied / "inference.yml").write_text(text, encoding="utf-8")
    refusal(copied)


@pytest.mark.parametrize("value", [0, -1, 4097, 10**7, 10**4000, 2.5, True, "224", None, [224], float("nan")])
def test_sides_out_of_range_are_refused(copied, value):
    for index, name, key in ((0, "ResizeImage", "resize_short"), (1, "CropImage", "size")):
        content = content_of(copied)
        content["PreProcess"]["transform_ops"][index][name][key] = value
        write(copied, content)
        refusal(copied)


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", 0), ("scale", float("nan")), ("scale", "1/255"), ("mean", [0, 0, float("inf")]), ("mean", [1, 2]),
     ("std", [0, 1, 1]), ("std", None), ("std", [-1, 1, 1])],
)  # fmt: skip
def test_numbers_that_normalise_to_nothing_are_refused(copied, key, value):
    content = content_of(copied)
    content["PreProcess"]["transform_ops"][2]["NormalizeImage"][key] = value
    write(copied, content)
    refusal(copied)


def test_thousands_of_steps_are_refused(copied):
    content = content_of(copied)
    content["PreProcess"]["transform_ops"] *= 1000
    write(copied, content)
    assert "transform_ops: expected a list of at most 16 steps" in refusal(copied)


@pytest.mark.parametrize("labels", [[], "abc", {"a": 1}, ["a", None], ["a", " "], ["a", ["b"]], ["a", "\ud800"], 3])
def test_labels_that_are_no_text_are_refused(copied, labels):
    content = content_of(copied)
    content["PostProcess"]["Topk"]["label_list"] = labels
    text = yaml.safe_dump(content, allow_unicode=False)
    (copied / "inference.yml").write_bytes(text.encode("utf-8", "surrogatepass"))
    refusal(copied)


@pytest.mark.parametrize("engine", ["paddle", "pplc", "onnxruntime", "openvino"])
def test_as_many_labels_as_classes(copied, engine):
    if installed()[engine] is not None:
        pytest.skip(str(installed()[engine]))
    content = content_of(copied)
    labels = content["PostProcess"]["Topk"]["label_list"]
    for changed in (labels[:-1], [*labels, "more"], None):
        content["PostProcess"]["Topk"]["label_list"] = changed
        write(copied, content)
        number = 1000 if changed is None else len(changed)
        with pytest.raises(PredictError, match=f"has 5 classes, but inference.yml has {number} labels"):
            Predictor(copied, engine=engine, threads=1)
    content["PostProcess"]["Topk"]["label_list"] = ["same"] * 5
    write(copied, content)
    assert Predictor(copied, engine=engine, threads=1).labels == ["same"] * 5  # as twice in ImageNet-1k's


def make_infinite(folder: Path) -> None:
    """Make the largest weights of the classifier so large that its products are infinite."""
    weight = next(n for n in reversed(read_paddle(folder).nodes) if n.kind == "linear").weights["weight"]
    file = folder / "inference.pdiparams"
    data = file.read_bytes()
    assert data.count(weight.tobytes()) == 1
    file.write_bytes(data.replace(weight.tobytes(), np.full_like(weight, 3e38).tobytes()))


@pytest.mark.parametrize("engine", ["paddle", "pplc", "onnxruntime", "openvino"])
def test_scores_that_are_no_numbers_are_an_error(copied, engine):
    if installed()[engine] is not None:
        pytest.skip(str(installed()[engine]))
    make_infinite(copied)
    predictor = Predictor(copied, engine=engine, threads=1)
    with pytest.raises(PredictError, match="no number"):
        list(predictor.predict([np.full((40, 40, 3), 200, np.uint8)]))


def test_scores_that_are_no_numbers_are_one_line_of_the_command(copied, pplc):
    from helpers.images import random_image, write_image

    make_infinite(copied)
    write_image(pplc.cwd / "image.png", random_image(0))
    done = pplc("predict", "--model", str(copied), "image.png", "--json", check=False)
    assert done.returncode and not done.stdout and "Traceback" not in done.stderr
    assert "no number" in " ".join(done.stderr.split())


@pytest.mark.skipif(unsupported() is not None, reason=str(unsupported()))
def test_a_damaged_network_is_refused_before_paddle_opens_it(copied):
    text = (copied / "inference.json").read_text("utf-8")
    assert '"D":"hardswish"' not in text
    (copied / "inference.json").write_text(text.replace("[16,8,1,1]", "[16,-8,1,1]"), encoding="utf-8")
    for engine in ("paddle", "pplc", "onnxruntime"):
        with pytest.raises(PredictError, match=r"inference\.(json|pdiparams): "):
            Predictor(copied, engine=engine, threads=1)
