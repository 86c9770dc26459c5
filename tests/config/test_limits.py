"""Every number of the configuration is bounded, and a file costs no more than its size explains."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from pplc_cli.base.errors import ConfigError
from pplc_cli.config.load import check_config, load_config
from pplc_cli.config.sections import Config
from pplc_cli.config.yaml_file import MAX_BYTES, read_yaml
from pplc_cli.data.transforms.pipeline import check_transforms
from pplc_cli.data.transforms.registry import TRANSFORMS

LOWER, UPPER = {"at_least", "more_than"}, {"at_most", "below"}


def numbers_of(cls: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Every field that takes numbers, with its limits."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from numbers_of(hint, f"{prefix}{field.name}.")
        elif {int, float} & set(leaves(hint)):
            yield prefix + field.name, field.metadata.get("limits", {})


def leaves(hint: Any) -> Iterator[Any]:
    """The types that a type hint is made of."""
    args = get_args(hint)
    if not args:
        yield hint
    for each in args:
        yield from leaves(each)


NUMBERS = [
    *numbers_of(Config),
    *(number for name, cls in TRANSFORMS.items() for number in numbers_of(cls, f"{name}.")),
]


def test_numbers_are_found() -> None:
    names = {name for name, _ in NUMBERS}
    assert {"train.epochs", "train.class_weights", "model.options.se_blocks", "predict.top_k"} <= names
    assert {"RandomCrop.crop_size", "Mixup.alpha", "Normalize.mean"} <= names and len(names) > 70


@pytest.mark.parametrize(("name", "limits"), NUMBERS, ids=[name for name, _ in NUMBERS])
def test_every_number_has_bounds(name: str, limits: dict[str, float]) -> None:
    assert limits.keys() & LOWER, f"{name} has no lower bound"
    assert limits.keys() & UPPER, f"{name} has no upper bound"


ABSURD = [10**20, -(10**20), 2**64, 10**300, 10**5000, float("nan"), float("inf"), 1e300]


@pytest.mark.parametrize("value", ABSURD, ids=[str(value)[:9] if value != 10**5000 else "long" for value in ABSURD])
def test_absurd_numbers_are_refused_everywhere(value: Any) -> None:
    for name, _ in NUMBERS:
        head, _, rest = name.partition(".")
        for raw in (value, [value, value], {"a": value}):
            if head in TRANSFORMS:
                faults: list[str] = []
                check_transforms([{head: {rest: raw}}, "Normalize"], "t", faults, training=True)
                assert any(fault.startswith(f"t[0].{name}: expected") for fault in faults), name
                assert all(len(fault) < 400 for fault in faults)
                continue
            section: Any = raw
            for key in reversed(name.split(".")):
                section = {key: section}
            with pytest.raises(ConfigError) as caught:
                check_config({"data": {"dir": "d"}, **section} if head != "data" else {"data": {"dir": "d", rest: raw}})
            assert any(fault.startswith(f"{name}: expected") for fault in caught.value.faults), name


def test_many_transforms_are_refused() -> None:
    faults: list[str] = []
    check_transforms(["RandomHorizontalFlip"] * 100_000, "train.transforms", faults, training=True)
    assert faults == ["train.transforms: expected at most 64 transforms, got 100,000"]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "\udcff"])
def test_texts_that_no_file_can_hold_are_refused(text: str) -> None:
    for raw in (
        {"output": text},
        {"data": {"dir": text}},
        {"train": {"class_weights": {text: 1.0}}},
        {"model": {"pretrained": text}},
    ):
        with pytest.raises(ConfigError, match=r"expected"):
            check_config({"data": {"dir": "d"}, **raw})
    with pytest.raises(ConfigError, match=r"output: expected text without NUL"):
        check_config({"data": {"dir": "d"}, "output": text})


def test_a_class_that_is_a_number_must_be_quoted() -> None:
    with pytest.raises(ConfigError, match=r"got \{1: 2\.0\}; put the name 1 in quotes, as in \"1\"$"):
        check_config({"data": {"dir": "d"}, "train": {"class_weights": {1: 2.0}}})
    with pytest.raises(ConfigError, match=r"put the name 2\.5 in quotes"):
        check_config({"data": {"dir": "d"}, "train": {"class_weights": {"a": 1.0, 2.5: 2.0}}})
    assert check_config({"data": {"dir": "d"}, "train": {"class_weights": {"1": 2.0}}}).train.class_weights == {
        "1": 2.0
    }


def bombs() -> dict[str, str]:
    """Small files that would expand to gigabytes, or take a parser hours."""
    merges = ["m0: &m0 {a: 1, b: 2}"]
    merges += [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}, *m{i - 1}, *m{i - 1}]}}" for i in range(1, 40)]
    lists = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lists += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 40)]
    return {
        "chained merges": "\n".join(merges),
        "chained aliases": "\n".join(lists),
        "a mapping in itself": "a: &a {b: *a}",
        "a merge of itself": "a: &a {<<: *a}",
        "aliases as keys": "a: &a [1, 2]\n? *a\n: 1",
        "digits of base 60": "output: 1" + ":1" * 300_000,
        "a fraction of base 60": "output: 1" + ":1" * 300_000 + ".5",
        "a long integer": "output: " + "9" * 300_000,
        "a long hexadecimal": "output: 0x" + "f" * 300_000,
        "nesting": "a: " + "{a: " * 5000,
        "a long key": f"{'k' * 500_000}: 1",
        "a large file": "# " + "x" * MAX_BYTES,
    }


@pytest.mark.parametrize("name", list(bombs()))
def test_a_small_file_takes_little_time_and_memory(name: str, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="limits of a process need a Unix system")
    path = tmp_path / "config.yaml"
    path.write_text(bombs()[name], encoding="utf-8")
    code = textwrap.dedent(f"""
        import resource
        from pplc_cli.base.errors import ConfigError
        from pplc_cli.config.yaml_file import read_yaml
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        try:
            value = read_yaml({str(path)!r})
        except ConfigError as error:
            assert len(error.faults) == 1 and len(str(error)) < 500, len(str(error))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_without_an_end_are_refused() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero")
    with pytest.raises(ConfigError, match=r"is larger than 2,000,000 bytes"):
        read_yaml("/dev/zero")
    with pytest.raises(ConfigError, match=r"is no file name: it contains NUL"):
        load_config("a\0b")


def test_merges_of_usual_size_still_work(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "data: &d {dir: d}\nsplit: &s {val: 0.3}\neval: {<<: [*e, *f]}\n".replace(
            "{<<: [*e, *f]}", "{<<: [&e {batch_size: 9}, &f {worst: 3}], worst: 4}"
        ),
        encoding="utf-8",
    )
    config = load_config(path)
    assert (config.eval.batch_size, config.eval.worst, config.split.val) == (9, 4, 0.3)
