"""The YAML: every fault at once, nothing evaluated, overrides under the same checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.commands import ROOT
from pplc_cli.base.errors import ConfigError, PplcError
from pplc_cli.config.load import check_config, load_config, parse_override
from pplc_cli.config.sections import Config
from pplc_cli.config.yaml_file import read_yaml

GOOD = {"data": {"dir": "d"}}


def faults_of(raw: Any, overrides: Any = None, **options: Any) -> list[str]:
    """The faults of a configuration that must have some."""
    with pytest.raises(ConfigError) as caught:
        check_config(raw, overrides, **options)
    assert caught.value.faults and all(fault in str(caught.value) for fault in caught.value.faults)
    return caught.value.faults


def written(tmp_path: Path, text: str | bytes) -> Path:
    """A file of this text."""
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def faults_of_file(tmp_path: Path, text: str | bytes) -> str:
    """The only fault of a file."""
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text))
    assert len(caught.value.faults) == 1 and "config.yaml" in str(caught.value)
    return caught.value.faults[0]


def test_least_configuration() -> None:
    config = check_config(GOOD)
    assert config.data.dir == "d" and config.output == "output/d"
    assert config.train.epochs == 10 and config.train.lr_decay_epochs == [30, 60, 90]


def test_every_fault_at_once() -> None:
    faults = faults_of(
        {
            "data": {"dri": "d"},
            "train": {"epoch": 3, "batch_size": True, "learning_rate": "fast", "optimizer": "adma"},
            "modle": {},
            "batch_size": 3,
            "model": {"name": "PPLCNet_x1_1"},
            "eval": {"transforms": [{"Resise": {"target_size": 9}}]},
        }
    )
    text = "\n".join(faults)
    for words in (
        "data.dri: unknown key; did you mean data.dir?",
        "data.dir: is required, expected a string",
        "train.epoch: unknown key; did you mean train.epochs?",
        "train.batch_size: expected an integer of at least 1 and at most 65,536, or auto, got True",
        "train.learning_rate: expected a number of more than 0 and at most 1,000, got 'fast'",
        "train.optimizer: expected one of momentum, sgd, adam, adamw, got 'adma'; did you mean adam?",
        "modle: unknown key; did you mean model?",
        "batch_size: unknown key; did you mean train.batch_size or eval.batch_size or predict.batch_size?",
        "model.name: ",
        "eval.transforms[0]: unknown transform 'Resise'; did you mean Resize?",
    ):
        assert words in text
    assert len(faults) == 10


@pytest.mark.parametrize("raw", [{}, None, {"data": None}, {"data": {}}, {"output": "o"}])
def test_missing_data_folder(raw: Any) -> None:
    assert faults_of(raw) == ["data.dir: is required, expected a string"]


@pytest.mark.parametrize(("folder", "words"), [("", "got ''"), ("  ", "got '  '"), (3, "got 3"), (None, "got nothing")])
def test_impossible_data_folder(folder: Any, words: str) -> None:
    (fault,) = faults_of({"data": {"dir": folder}})
    assert fault.startswith("data.dir: expected a") and words in fault


@pytest.mark.parametrize(
    ("folder", "output"),
    [
        ("a/大 熊猫", "output/大 熊猫"),
        ("a\\b", "output/b"),
        (".", "output/run"),
        ("..", "output/run"),
        ("/", "output/run"),
    ],
)
def test_output_follows_the_data_folder(folder: str, output: str) -> None:
    assert check_config({"data": {"dir": folder}}).output == output


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"split": {"val": 0.7, "test": 0.3}}, "split: expected val + test below 1"),
        ({"split": {"group": "("}}, "split.group: expected a regular expression"),
        ({"split": {"group": "a{99999999999999999999}"}}, "split.group: expected a regular expression"),
        ({"split": {"val": float("nan")}}, "split.val: expected a number"),
        ({"train": {"lr_decay_epochs": [3, 2]}}, "train.lr_decay_epochs: expected rising epochs"),
        ({"train": {"warmup_epochs": 11}}, "train.warmup_epochs: expected at most train.epochs (10)"),
        ({"train": {"transforms": []}}, "train.transforms: "),
        ({"train": {"transforms": "Normalize"}}, "train.transforms: expected a list"),
        ({"eval": {"split": "tset"}}, "eval.split: expected one of train, val, test, or null, got 'tset'"),
        ({"output": ""}, "output: expected a folder"),
        ({1: 2}, "1: unknown key"),
    ],
)
def test_faults_of_meaning(raw: dict, words: str) -> None:
    assert any(fault.startswith(words) for fault in faults_of({**GOOD, **raw}))


def test_number_as_people_write_it(tmp_path: Path) -> None:
    text = "data: {dir: d}\ntrain: {learning_rate: 1e-3, weight_decay: 5E-5, warmup_epochs: 1}\n"
    train = load_config(written(tmp_path, text)).train
    assert (train.learning_rate, train.weight_decay, train.warmup_epochs) == (1e-3, 5e-5, 1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {dir: d}\ntrain:\n  epochs: 1\n  epochs: 2\n", "line 4: expected YAML: the key 'epochs' appears twice"),
        ("data: {dir: d}\ntrain: [1\n", "line 3: expected YAML"),
        ("data:\n\tdir: d\n", "line 2: expected YAML"),
        ("data: {dir: d}\n? [a, b]\n: 1\n", "line 2: expected YAML: a key must be a plain value"),
        ("data: {dir: 2026-13-45}\n", "line 1: expected YAML: not a valid timestamp"),
        ("data: {dir: !!bool maybe}\n", "line 1: expected YAML: not a valid bool"),
        ("data: {dir: !!timestamp never}\n", "line 1: expected YAML: not a valid timestamp"),
        ("a: 1\n---\nb: 2\n", "expected YAML"),
        ("data: !!map text\n", "line 1: expected YAML"),
        ("output: " + "9" * 5000, "line 1: expected YAML: not a valid int"),
        ("data: " + "[" * 1000, "nested too deeply"),
        ("data: &a [*a]\n", "alias that contains itself"),
        ("data: \0", "expected YAML"),
        ("data: {dir: caf\xe9}\n".encode("latin-1"), "expected YAML in UTF-8"),
        ("data: {dir: d}\n".encode("utf-16"), "expected YAML in UTF-8"),
        ("just words", "the file: expected a mapping"),
        ("- 1\n- 2\n", "the file: expected a mapping"),
    ],
)
def test_no_usable_yaml(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in faults_of_file(tmp_path, text)


def test_aliases_do_not_blow_up(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "more than 100000 values" in faults_of_file(tmp_path, "\n".join(lines))


def test_merge_keys_and_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffdata: {dir: d}\ntrain: &t {epochs: 3, batch_size: 4}\neval:\n  <<: {batch_size: 9}\n  worst: 2\n"
    config = load_config(written(tmp_path, text))
    assert (config.eval.batch_size, config.eval.worst, config.train.epochs) == (9, 2, 3)


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/new:os.system", "name:os.system", "module:os"])
def test_python_tags_are_refused_and_not_run(tmp_path: Path, tag: str) -> None:
    mark = tmp_path / "ran"
    fault = faults_of_file(tmp_path, f"data:\n  dir: !!python/{tag} ['touch {mark}']\n")
    assert fault.startswith("line 2: expected YAML") and "python" in fault
    with pytest.raises(PplcError):
        parse_override(f"data.dir=!!python/{tag} ['touch {mark}']")
    assert not mark.exists()


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, "data: {dir: d}\n")
    with pytest.raises(ConfigError, match=r"no such file; did you mean .*[\\/]config\.yaml\?"):
        load_config(tmp_path / "confg.yaml")
    with pytest.raises(ConfigError, match="is a folder, expected a YAML file; pplc init"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "no" / "folder.yaml")


def test_overrides_win_and_leave_the_file_alone(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {dir: d}\ntrain: {epochs: 3, class_weights: {a: 1, b: 2}}\n")
    options = ["train.epochs=5", "train.class_weights.a=7", "model.name=PPLCNet_x0_25", "train.learning_rate=1e-3"]
    config = load_config(path, dict(map(parse_override, options)))
    assert config.train.epochs == 5 and config.train.class_weights == {"a": 7.0, "b": 2.0}
    assert config.model.name == "PPLCNet_x0_25" and config.train.learning_rate == 1e-3
    raw = read_yaml(path)
    check_config(raw, {"train.class_weights.a": 7, "train.epochs": 9, "eval.worst": 1})
    assert raw == read_yaml(path)


def test_overrides_alone_make_a_configuration() -> None:
    assert load_config(None, {"data.dir": "x"}).data.dir == "x"
    with pytest.raises(ConfigError, match=r"the options: data\.dir: is required"):
        load_config()


def test_faults_of_options_do_not_blame_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data: {dir: .}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^the options: train\.epoch: unknown key; did you mean train\.epochs\?"):
        load_config(path, {"train.epoch": 3})
    with pytest.raises(
        ConfigError,
        match=r"^the options: train\.epochs: expected an integer of at least 1 and at most 1,000,000, got 0",
    ):
        load_config(path, {"train.epochs": 0})
    path.write_text("data: {dir: .}\ntrain: {seeds: 1}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml: 2 faults"):
        load_config(path, {"train.epochs": 0})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.epoch", 5, "train.epoch: unknown key; did you mean train.epochs?"),
        ("train.epochs", "five", "train.epochs: expected an integer of at least 1 and at most 1,000,000, got 'five'"),
        ("train.epochs", None, "train.epochs: expected an integer of at least 1 and at most 1,000,000, got nothing"),
        ("train.epochs.x", 5, "train.epochs.x: epochs has a value, not keys"),
        ("trian.epochs", 5, "trian: unknown key; did you mean train?"),
        ("train", 5, "train: expected a mapping"),
    ],
)
def test_overrides_are_checked(key: str, value: Any, words: str) -> None:
    raw = {**GOOD, "train": {"epochs": 3}}
    assert any(fault.startswith(words) for fault in faults_of(raw, {key: value}))


@pytest.mark.parametrize("text", ["train.epochs", "=5", " =5", "a=[1", "a={b: 1, b: 2}", "a=2026-13-45", "a=&a [*a]"])
def test_override_that_is_none(text: str) -> None:
    with pytest.raises(PplcError, match="-o "):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=5", ("train.epochs", 5)),
        (" output = a=b", ("output", "a=b")),
        ("x=", ("x", None)),
        ("train.lr_decay_epochs=[1, 2]", ("train.lr_decay_epochs", [1, 2])),
    ],
)
def test_parse_override(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


def test_paths_that_must_exist(tmp_path: Path) -> None:
    raw = {"data": {"dir": str(tmp_path / "no"), "val_list": "no.txt"}, "model": {"pretrained": "no.safetensors"}}
    assert check_config(raw).data.val_list == "no.txt"
    faults = faults_of(raw, must_exist=("data.dir", "model.pretrained"))
    assert [fault.split(":")[0] for fault in faults] == ["data.dir", "data.val_list", "model.pretrained"]
    long = {"data": {"dir": "x" * 5000, "labels": "y" * 5000}, "model": {"pretrained": "~nobody/" + "z" * 5000}}
    assert len(faults_of(long, must_exist=("data.dir", "model.pretrained"))) == 3
    assert check_config({"data": {"dir": str(tmp_path)}}, must_exist=("data.dir", "model.pretrained"))


def test_round_trip() -> None:
    config = check_config(
        {
            **GOOD,
            "train": {"class_weights": {"猫": 2, "dog": 0.5}, "lr_decay_epochs": [1, 2], "threads": 2},
            "split": {"group": r"(\d+)_"},
            "eval": {"split": "val"},
        }
    )
    plain = config.to_dict()
    assert check_config(plain) == config
    assert check_config(yaml.safe_load(yaml.safe_dump(plain, allow_unicode=True))) == config
    assert {field.name for field in dataclasses.fields(Config)} == set(plain)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.y*ml")), ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_config(path).data.dir


NAMES = [f.name for f in dataclasses.fields(Config)] + ["dir", "epochs", "transforms", "Normalize", "Resize", "name"]
NAMES += ["target_size", "RandomCrop", "crop_size", "Mixup", "Padding", "class_weights", "group", "val", "pretrained"]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(NAMES) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5) | st.integers(), inner, max_size=5)
    ),
    max_leaves=15,
)
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries({"dir": st.text(max_size=9)}) | PLAIN,
        "train": st.fixed_dictionaries({"transforms": st.lists(PLAIN, max_size=3)}) | PLAIN,
        "eval": st.fixed_dictionaries({"transforms": st.lists(PLAIN, max_size=3)}) | PLAIN,
        "split": st.fixed_dictionaries({"group": st.text(max_size=9)}) | PLAIN,
        "model": PLAIN,
        "output": PLAIN,
    },
)


@given(PLAIN | SECTIONS)
@settings(max_examples=150, deadline=None)
def test_arbitrary_data_raises_nothing_but_config_error(raw: Any) -> None:
    try:
        config = check_config(raw, must_exist=("data.dir", "model.pretrained"))
    except ConfigError as error:
        assert error.faults and all(": " in fault for fault in error.faults)
    else:
        assert check_config(config.to_dict()) == config


@given(st.binary(max_size=60) | st.text(alphabet="a:-[]{}&*!|>'\"%@`#,?<= \n\t1.", max_size=40).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_arbitrary_files_raise_nothing_but_config_error(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text)
    try:
        value = read_yaml(path)
    except ConfigError as error:
        assert error.faults
    else:
        assert value is None or isinstance(value, (str, bytes, int, float, list, dict, set)) or hasattr(value, "year")
