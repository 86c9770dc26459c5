"""Networks and transforms in Python files that a configuration names: trained, evaluated, exported, and never run
because a run's folder names them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
import yaml

from helpers.commands import Pplc
from helpers.images import random_image, write_image
from pplc_cli import (
    PplcError,
    Predictor,
    build_network,
    evaluate,
    export,
    load_config,
    load_run,
    register_network,
    register_transform,
    train,
)
from pplc_cli.base.errors import CheckpointError, ConfigError, DataError, ModelError
from pplc_cli.config import own_code
from pplc_cli.data.transforms.pipeline import Pipeline, check_transforms
from pplc_cli.data.transforms.registry import OwnTransform
from pplc_cli.models import registry

MINE = '''
from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
from paddle import nn

Path(__file__).with_name("ran").write_text("x")


class Net(nn.Layer):
    """Layers that pplc's kernels know, and one that they do not."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2D(16)
        self.act = nn.GELU()
        self.pool = nn.AdaptiveMaxPool2D(1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, images):
        return self.fc(self.pool(self.act(self.norm(self.conv(images)))).flatten(1))


def speckle(image, rng, strength: float = 3.0, rows: Optional[list[int]] = None):
    image[::2] = np.clip(image[::2] + rng.normal(0, strength, image[::2].shape), 0, 255)
    return image


class Stripes:
    def __init__(self, strength: int, dark: bool = True) -> None:
        self.divisor = 1 + strength

    def __call__(self, image, rng):
        image[rng.integers(2) :: 2] //= self.divisor
        return image
'''


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start with nothing registered, as a new process does."""
    from pplc_cli.data.transforms import registry as transforms

    monkeypatch.setattr(registry, "_OWN", {})
    monkeypatch.setattr(transforms, "_OWN", {})
    monkeypatch.setattr(own_code, "_LOADED", {})
    yield
    for name in [name for name in sys.modules if name.startswith("pplc_own_")]:
        del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with photographs, ``configs/own.yaml`` and ``configs/mine.py``."""
    for label, name in enumerate(("a", "b")):
        for index in range(12):
            image = random_image(100 * label + index) // 2
            image[12:36, 12:36, 2 * label] += 100
            write_image(tmp_path / "ds" / name / f"{index}.png", image)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text(MINE, encoding="utf-8")
    config = {
        "data": {"dir": str(tmp_path / "ds")},
        "output": str(tmp_path / "out"),
        "model": {"name": "mine.py:Net"},
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "schedule": "constant",
            "transforms": [{"RandomCrop": {"crop_size": 32}}, {"mine.py:speckle": {"strength": 5}},
                           {"mine.py:Stripes": {"strength": 1}}, "Normalize"],
        },
        "eval": {"transforms": [{"Resize": {"target_size": 32}}, "Normalize"]},
    }  # fmt: skip
    write(tmp_path, config)
    return tmp_path


def write(project: Path, config: dict[str, Any]) -> Path:
    file = project / "configs" / "own.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def changed(project: Path, model: Optional[str] = None, transforms: Optional[list[Any]] = None) -> Path:
    """The configuration with another network or other transforms."""
    config = yaml.safe_load((project / "configs" / "own.yaml").read_text(encoding="utf-8"))
    if model is not None:
        config["model"]["name"] = model
    if transforms is not None:
        config["train"]["transforms"] = [{"RandomCrop": {"crop_size": 32}}, *transforms, "Normalize"]
    return write(project, config)


@pytest.mark.slow
def test_the_commands_train_evaluate_export_and_predict(project: Path) -> None:
    pplc = Pplc(project)
    pplc("split", "--dataset", "ds")
    given = ("--config", "configs/own.yaml")
    done = pplc("train", "configs/own.yaml", "--nproc", "2")
    assert "epoch 2/2" in done.stderr and "Traceback" not in done.stderr
    ran = project / "configs" / "ran"
    ran.unlink()
    for command in ("eval", "export"):
        refused = pplc(command, check=False)
        assert refused.returncode == 1 and not ran.exists()
        (line,) = [line for line in refused.stderr.splitlines() if line.startswith("Error:")]
        assert "mine.py:Net is code of your own" in line and "--config FILE" in line
    assert "top-1" in pplc("eval", *given).stdout
    assert "Checked: same predictions as the trained network" in pplc("export", *given).stdout
    ran.unlink()
    assert "ds/a/0.png" in pplc("predict", "ds/a/0.png").stdout  # needs neither the network's code nor the transforms
    assert not ran.exists()


def test_training_and_prediction_from_python(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pplc_cli import split_dataset

    split_dataset(project / "ds")
    result = train(project / "configs" / "own.yaml")
    opened = load_run(result.run.folder)
    assert opened.config.model.name == "mine.py:Net" and opened.labels == ["a", "b"]
    before = evaluate(opened).metrics["top1"]
    exported = export(opened)
    assert max(exported.differences.values()) < 1e-4
    (prediction,) = Predictor(exported.folder).predict([str(project / "ds" / "a" / "0.png")])
    assert prediction.error is None

    # As in another process, in which nothing is registered.
    monkeypatch.setattr(registry, "_OWN", {})
    with pytest.raises(CheckpointError, match=r"mine\.py:Net is code of your own.*load_config\(FILE\)"):
        evaluate(opened)
    assert load_run(result.run.folder).config == opened.config
    load_config(project / "configs" / "own.yaml")
    assert evaluate(opened).metrics["top1"] == before

    # The file has changed.
    mine = project / "configs" / "mine.py"
    mine.write_text(MINE + "# another line\n", encoding="utf-8")
    config = load_config(project / "configs" / "own.yaml", {"train.epochs": 3})
    for call in (lambda: evaluate(opened), lambda: export(opened), lambda: train(config, resume=True)):
        with pytest.raises(CheckpointError, match=r"the file of mine\.py:\w+ has changed since the training"):
            call()
    mine.write_text(MINE, encoding="utf-8")
    config = load_config(project / "configs" / "own.yaml", {"train.epochs": 3})
    assert train(config, resume=True).epochs == 3


def test_a_run_of_a_stranger_runs_nothing(project: Path) -> None:
    """A run's folder with a configuration that names a file in it."""
    run = project / "stranger"
    run.mkdir()
    (run / "best_model").mkdir()
    (run / "mine.py").write_text(MINE, encoding="utf-8")
    config = yaml.safe_load((project / "configs" / "own.yaml").read_text(encoding="utf-8"))
    for name in ("mine.py:Net", f"{run}/mine.py:Net", "stranger/mine.py:Net"):
        config["model"]["name"] = name
        (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        opened = load_run(run)
        assert opened.config.model.name == name
        with pytest.raises(ModelError, match="code of your own"):
            build_network(opened.config.model.name, 2)
        with pytest.raises(ConfigError, match=r"mine\.py:speckle is code of your own, and it is not loaded"):
            Pipeline(opened.config.train.transforms, training=True)
    assert not (run / "ran").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("mine.py:Nte", r"model\.name: mine\.py:Nte: .*mine\.py does not define it"),
        ("mien.py:Net", r"model\.name: mien\.py:Net: .*mien\.py cannot be read: No such file"),
        ("mine.py:__name__", r"model\.name: mine\.py:__name__: factory: expected a class or a function, got str"),
        ("broken.py:Net", r"model\.name: broken\.py:Net: .*broken\.py: line 3: SyntaxError: "),
        ("fails.py:Net", r"model\.name: fails\.py:Net: .*fails\.py: line 2: NameError: name 'nothing' is not"),
        ("mine.py", r"model\.name: unknown network 'mine\.py'"),
    ],
)
def test_a_network_that_cannot_be_loaded(project: Path, model: str, words: str) -> None:
    (project / "configs" / "broken.py").write_text("a = 1\n\ndef Net(:\n", encoding="utf-8")
    (project / "configs" / "fails.py").write_text("a = 1\nb = nothing\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(changed(project, model=model))
    assert len(caught.value.faults) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ({"mine.py:speckle": {"strength": "x"}}, r"\.strength: expected a number, got 'x'"),
        ({"mine.py:speckle": {"strenght": 1}}, r"\.strenght: unknown key; did you mean .*\.strength\?"),
        ({"mine.py:speckle": {"rows": [1.5]}}, r"\.rows: expected a list, each an integer, or null"),
        ("mine.py:Stripes", r"\.strength: is required, expected an integer"),
        ({"mine.py:Stripes": {"strength": 1, "dark": 1}}, r"\.dark: expected true or false, got 1"),
        ("mine.py:spekle", r"train\.transforms\[1\]: mine\.py:spekle: .* does not define it"),
    ],
)
def test_the_parameters_of_a_transform_are_checked(project: Path, transform: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(changed(project, transforms=[transform]))
    assert len(caught.value.faults) == 1


def test_a_transform_without_type_hints_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^hazy: the parameter strength needs a type hint"):
        register_transform("hazy", lambda image, rng, strength: image)
    with pytest.raises(DataError, match="pplc has a transform 'Resize' already"):
        register_transform("Resize", lambda image, rng: image)


def test_transforms_of_ones_own_are_for_training_only() -> None:
    register_transform("same", lambda image, rng: image)
    faults: list[str] = []
    check_transforms([{"Resize": {"target_size": 8}}, "same", "Normalize"], "eval.transforms", faults, training=False)
    assert faults == [
        "eval.transforms[1]: same is a transform of your own; they are for train.transforms only, since an exported "
        "folder cannot contain them"
    ]


def test_a_transform_gets_a_copy_and_must_keep_the_kind_of_image() -> None:
    image, rng = np.arange(48, dtype=np.uint8).reshape(4, 4, 3), np.random.default_rng(0)
    view = image[:, ::-1]

    def blacken(given: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        given[:] = 0
        return given

    assert not OwnTransform("blacken", blacken)(view, rng).any() and image[0, 0, 1] == 1
    results: list[Any] = [image[:2], image / 2, None]
    for result, words in zip(results, (r"uint8 \(2, 4, 3\)", "float64", "NoneType")):

        def other(given: np.ndarray, rng: np.random.Generator, result: Any = result) -> Any:
            return result

        with pytest.raises(DataError, match=rf"other: expected an array like the image, uint8 .*, got {words}"):
            OwnTransform("other", other)(view, rng)


def test_networks_registered_from_python() -> None:
    import paddle

    class Net(paddle.nn.Layer):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.head = paddle.nn.Linear(3, num_classes)

        def forward(self, images: Any) -> Any:
            return self.head(images.mean([2, 3]))

    register_network("Averages", Net, classifier="head")
    assert build_network("Averages", 4)(paddle.zeros([2, 3, 8, 8])).shape == [2, 4]
    assert load_config(None, {"data.dir": "x", "model.name": "Averages"}).model.name == "Averages"
    with pytest.raises(ModelError, match="pplc has a network 'PPLCNet_x1_0' already"):
        register_network("PPLCNet_x1_0", Net)
    with pytest.raises(ModelError, match=r"model\.dropout and model\.options do not apply to Averages"):
        build_network("Averages", 4, dropout=0.1)
    register_network("Nothing", lambda num_classes: None)
    with pytest.raises(ModelError, match=r"Nothing: expected a paddle\.nn\.Layer, got NoneType"):
        build_network("Nothing", 4)


def test_one_name_stands_for_one_file(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    load_config(project / "configs" / "own.yaml")
    other = tmp_path_factory.mktemp("other")
    (other / "mine.py").write_text(MINE, encoding="utf-8")
    (other / "own.yaml").write_bytes((project / "configs" / "own.yaml").read_bytes())
    with pytest.raises(PplcError, match=r"mine\.py already has this name; rename one of the files"):
        load_config(other / "own.yaml")
