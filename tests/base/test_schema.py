"""Plain data against dataclasses: types, limits and the wording of faults."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Optional, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pplc_cli.base.schema import describe, did_you_mean, option, read


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = option(at_least=1)
    name: str = option("a", choices=("a", "bee"))


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = option()
    rate: float = option(0.5, more_than=0, below=1)
    flag: bool = option(False)
    steps: list[int] = option([1, 2], at_least=1)
    pair: tuple[float, float] = option((0.0, 1.0))
    maybe: Optional[int] = option(None, at_least=0)
    either: Union[str, dict[str, float], None] = option(None, more_than=0, choices=("balanced",))
    anything: Any = option(None)


def faults_of(raw: Any) -> list[str]:
    """Return the faults; check that read() gives an instance exactly if there is none."""
    faults: list[str] = []
    result = read(Outer, raw, "", faults)
    assert (result is None) == bool(faults)
    return faults


def good(**values: Any) -> Outer:
    """Return the instance made from valid values."""
    faults: list[str] = []
    result = read(Outer, {"inner": {"size": 3}, **values}, "", faults)
    assert faults == [] and result is not None
    return result


def test_defaults_and_types() -> None:
    assert good() == Outer(inner=Inner(3))
    outer = good(rate="1e-3", maybe=4, pair=[1, 2], steps=[5], either={"x": 2})
    assert (outer.rate, outer.maybe, outer.pair, outer.steps, outer.either) == (1e-3, 4, (1.0, 2.0), [5], {"x": 2.0})
    assert isinstance(outer.pair[0], float) and isinstance(good(rate=0.25).rate, float)


def test_defaults_are_not_shared() -> None:
    good().steps.append(9)
    assert good().steps == [1, 2]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rate", True, "expected a number of more than 0 and less than 1, got True"),
        ("rate", 0, "more than 0"),
        ("rate", 1, "less than 1"),
        ("rate", math.nan, "got nan"),
        ("rate", math.inf, "got inf"),
        ("rate", "nan", "got 'nan'"),
        ("rate", "fast", "got 'fast'"),
        ("rate", None, "got nothing"),
        ("rate", 10**400, "got 1000"),
        ("flag", 1, "expected true or false, got 1"),
        ("flag", "yes", "expected true or false, got 'yes'"),
        ("maybe", True, "expected an integer of at least 0 or null, got True"),
        ("maybe", 1.0, "expected an integer"),
        ("maybe", "1", "expected an integer"),
        ("maybe", -1, "at least 0"),
        ("maybe", 10**400, "expected an integer"),
        ("steps", 3, "expected a list, each an integer of at least 1, got 3"),
        ("steps", [1, 0], "at least 1"),
        ("steps", "12", "expected a list"),
        ("pair", [1], "expected 2 values, each a number, got [1]"),
        ("pair", [1, 2, 3], "expected 2 values"),
        ("either", "balance", "did you mean balanced?"),
        (
            "either",
            {"x": -1},
            "expected balanced, or a mapping, each value a number of more than 0, or null, got {'x': -1}",
        ),
        ("either", {"x": "y"}, "a mapping"),
        ("inner", 3, "expected a mapping of keys to values, got 3"),
    ],
)
def test_wrong_values(key: str, value: Any, words: str) -> None:
    (fault,) = faults_of({"inner": {"size": 1}, key: value})
    assert fault.startswith(f"{key}: ") and words in fault


@pytest.mark.parametrize("nested", [False, True])
def test_numbers_too_long_to_print(nested: bool) -> None:
    value = 10**5000
    (fault,) = faults_of({"inner": {"size": 1}, "rate": [value] if nested else value})
    assert fault.startswith("rate: expected a number") and len(fault) < 200


def test_all_faults_are_reported_with_key_and_nearest_name() -> None:
    faults = faults_of({"inner": {"sise": 1, "name": "be"}, "raet": 1, "flag": None, "zzzzz": 0})
    assert faults[0] == "raet: unknown key; did you mean rate?"
    assert faults[1].startswith("zzzzz: unknown key; known: inner, rate")
    assert "inner.sise: unknown key; did you mean inner.size?" in faults
    assert "inner.size: is required, expected an integer of at least 1" in faults
    assert "inner.name: expected one of a, bee, got 'be'; did you mean bee?" in faults
    assert "flag: expected true or false, got nothing" in faults
    assert len(faults) == 6


@pytest.mark.parametrize("raw", [{}, None, {"inner": None}, {"inner": {}}])
def test_a_missing_section_is_reported_with_its_required_keys(raw: Any) -> None:
    assert faults_of(raw) == ["inner.size: is required, expected an integer of at least 1"]


@pytest.mark.parametrize("raw", [[], "text", 3, [{"inner": 1}]])
def test_the_file_must_hold_a_mapping(raw: Any) -> None:
    (fault,) = faults_of(raw)
    assert fault.startswith("the file: expected a mapping")


def test_long_values_are_shortened() -> None:
    deep: Any = []
    for _ in range(60):
        deep = [deep, deep]  # printed in full, 2**60 brackets
    itself: list[Any] = []
    itself.append(itself)
    for value in (deep, itself, "x" * 10**6, list(range(10**5)), {str(i): i for i in range(1000)}):
        (fault,) = faults_of({"inner": {"size": 1}, "flag": value})
        assert len(fault) < 200


def test_did_you_mean() -> None:
    assert did_you_mean("EPOCH", ["batch_size", "epochs"]) == "; did you mean epochs?"
    assert did_you_mean("qqq", ["a", "b"]) == "; known: a, b"
    assert did_you_mean("qqq", map(str, range(20))) == f"; known: {', '.join(map(str, range(12)))} and 8 more"
    assert did_you_mean("qqq", ["a"], "look there") == "; look there"
    assert did_you_mean("net_1", ["net_10", "net_12", "net_15"]) == "; did you mean net_10?"  # the first of equals
    assert did_you_mean("x1", ["y0", "network_x1_0", "network_x1_5"]) == "; did you mean network_x1_0?"


@pytest.mark.parametrize(
    ("hint", "limits", "words"),
    [
        (str, {}, "a string"),
        (list[Any], {}, "a list"),
        (dict[str, float], {"at_least": 0, "below": 1}, "a mapping, each value a number of at least 0 and less than 1"),
        (Union[int, list[int]], {"at_least": 1}, "an integer of at least 1 or a list, each an integer of at least 1"),
        (Optional[list[int]], {}, "a list, each an integer, or null"),
        (Optional[bool], {}, "true or false or null"),
        (Union[int, str, None], {}, "an integer, or a string, or null"),
    ],
)
def test_describe(hint: Any, limits: dict[str, float], words: str) -> None:
    assert describe(hint, {"limits": limits}) == words


def test_the_meaning_of_a_key_is_in_its_metadata() -> None:
    field = option(1, at_least=1, help="The number of things.")
    assert field.metadata["help"] == "The number of things." and option().metadata["help"] == ""


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(Outer)]) | st.text(), PLAIN, max_size=6)
    | PLAIN
)
@settings(max_examples=150, deadline=None)
def test_arbitrary_data_gives_an_instance_or_faults(raw: Any) -> None:
    assert all(": " in fault for fault in faults_of(raw))
