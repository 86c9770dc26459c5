"""Check plain data (from YAML) against dataclasses, and collect every fault with its dotted key."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import reprlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Optional, TypeVar, Union, get_args, get_origin, get_type_hints

from pplc_cli.base.language.messages import marked, tr

T = TypeVar("T")
MOST_LISTED = 12  # names in a message


def option(
    default: Any = dataclasses.MISSING,
    *,
    at_least: Optional[float] = None,
    more_than: Optional[float] = None,
    at_most: Optional[float] = None,
    below: Optional[float] = None,
    choices: Optional[Iterable[str]] = None,
    help: str = "",
) -> Any:
    """Declare a dataclass field with limits on its value, or on each item of a list.

    Args:
        default: the value if the key is absent; without a default the key is required.
        at_least, more_than, at_most, below: limits on numbers.
        choices: the only texts allowed.
        help: the meaning of the key in one sentence, for the reference page; Markdown.
    """
    limits = {"at_least": at_least, "more_than": more_than, "at_most": at_most, "below": below}
    metadata = {
        "limits": {name: limit for name, limit in limits.items() if limit is not None},
        "choices": tuple(choices) if choices is not None else None,
        "help": help,
    }
    if isinstance(default, (list, dict)):
        frozen = default
        return dataclasses.field(default_factory=lambda: type(frozen)(frozen), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read(cls: type[T], raw: Any, key: str, faults: list[str], whole: Optional[type] = None) -> Optional[T]:
    """Make an instance of ``cls`` from a mapping.

    Args:
        cls: a dataclass; fields may be bool, int, float, str, list[...], tuple[...], dict, Any, Optional, Union or
            dataclasses.
        raw: the value from the YAML; None means an empty mapping.
        key: the dotted key of ``raw``; empty at the top.
        faults: the list to which every fault is appended as a sentence.
        whole: the dataclass whose sections may have a key that ``cls`` does not have; None: ``cls``.

    Returns:
        The instance, or None if there was a fault.
    """
    if raw is None:
        raw = {}
    if not isinstance(raw, Mapping):
        key = key or tr("the file")
        faults.append(tr("{key}: expected a mapping of keys to values, got {value}", key=key, value=show(raw)))
        return None
    whole = whole or cls
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    before = len(faults)
    values = {}
    for name in raw:
        if name not in fields:
            hint = _other_key(str(name), fields, key, whole)
            faults.append(tr("{key}: unknown key{hint}", key=_join(key, name), hint=hint))
    for name, field in fields.items():
        if name in raw:
            values[name] = _value(raw[name], hints[name], field.metadata, _join(key, name), faults, whole)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if dataclasses.is_dataclass(hints[name]):  # name the required keys of the missing section
                values[name] = read(hints[name], {}, _join(key, name), faults, whole)
                continue
            wanted = describe(hints[name], field.metadata)
            faults.append(tr("{key}: is required, expected {wanted}", key=_join(key, name), wanted=wanted))
    return cls(**values) if len(faults) == before else None


def did_you_mean(name: str, known: Iterable[str], advice: str = "") -> str:
    """Return the end of a message: the nearest known name; if none is near, ``advice``, or else the known names."""
    known = list(known)
    near = nearest(name, known)
    if near is not None:
        return _meant(near)
    if advice:
        return tr("; {advice}", advice=advice)
    listed, more = ", ".join(known[:MOST_LISTED]), len(known) - MOST_LISTED
    return tr("; known: {names} and {more} more", names=listed, more=more) if more > 0 else _known(listed)


def _meant(name: str) -> str:
    return tr("; did you mean {name}?", name=name)


def _known(names: str) -> str:
    return tr("; known: {names}", names=names)


def nearest(name: str, known: Iterable[str]) -> Optional[str]:
    """The known name most like ``name``, else one that contains it; the first of equals. None: there is none."""
    word = name.lower()
    lower: dict[str, str] = {}
    for item in known:
        lower.setdefault(item.lower(), item)
    like = set(difflib.get_close_matches(word, lower, n=len(lower) + 1))
    if like:
        best = max(
            (item for item in lower if item in like), key=lambda i: difflib.SequenceMatcher(None, i, word).ratio()
        )
        return lower[best]
    return next((name for item, name in lower.items() if len(word) > 1 and word in item), None)


def _other_key(name: str, fields: Iterable[str], key: str, whole: type) -> str:
    """The end of a message on an unknown key: the nearest key, else the same key of other sections."""
    near = nearest(name, fields)
    if near is not None:
        return _meant(_join(key, near))
    leaf = name.rpartition(".")[2]
    sections = {section: hint for section, hint in get_type_hints(whole).items() if dataclasses.is_dataclass(hint)}
    homes = [f"{section}.{leaf}" for section, hint in sections.items() if leaf in {f.name for f in _fields(hint)}]
    if homes:
        return _meant(functools.reduce(_either, homes))
    return did_you_mean(name, fields)


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _join(key: str, name: Any) -> str:
    text = name if isinstance(name, str) and len(name) <= 60 and name.isprintable() else show(name)
    return f"{key}.{text}" if key else text


def show(value: Any) -> str:
    """A short text for a value in a message, however large it is."""
    if value is None:
        return tr("nothing")
    try:
        text = _REPR.repr(value) if isinstance(value, (list, tuple, dict)) else repr(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return tr("a very long number") if isinstance(value, int) else tr("very long numbers")
    return text if len(text) <= 60 else text[:57] + "..."


_REPR = reprlib.Repr()  # a small YAML file with aliases can expand to gigabytes of text
_REPR.maxlevel, _REPR.maxlist, _REPR.maxdict, _REPR.maxstring, _REPR.maxother = 4, 12, 12, 60, 60

_NAMES = {
    int: marked("an integer"),
    float: marked("a number"),
    str: marked("a string"),
    bool: marked("true or false"),
    dict: marked("a mapping"),
    Any: marked("a value"),
}
_LIMITS = {
    "at_least": marked("at least {limit:,}"),
    "more_than": marked("more than {limit:,}"),
    "at_most": marked("at most {limit:,}"),
    "below": marked("less than {limit:,}"),
}


def describe(hint: Any, metadata: Mapping[str, Any]) -> str:
    """Describe the values that a type hint and the field's metadata allow, as in "an integer of at least 1 or null"."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is type(None):
        return "null"
    if hint is str and metadata.get("choices"):
        choices = metadata["choices"]
        return tr("one of {names}", names=", ".join(choices)) if len(choices) > 1 else str(choices[0])
    if origin is Union:
        words = [describe(each, metadata) for each in args]
        if len(words) == 2 and args[1] is type(None) and not _has_comma(args[0], metadata):
            return tr("{kind} or null", kind=words[0])
        return functools.reduce(_either_far if len(words) > 2 or _has_comma(args[0], metadata) else _either, words)
    if origin in (list, tuple):
        kind = tr("{count} values", count=len(args)) if origin is tuple else tr("a list")
        if args[0] is Any:
            return kind
        return tr("{kind}, each {item}", kind=kind, item=describe(args[0], metadata))
    if origin is dict and args[1] is not Any:
        return tr("a mapping, each value {value}", value=describe(args[1], metadata))
    hint = dict if origin is dict else hint
    name = tr(_NAMES[hint]) if hint in _NAMES else getattr(hint, "__name__", str(hint))
    if hint not in (int, float) or not metadata.get("limits"):
        return name
    limits = [tr(_LIMITS[kind], limit=limit) for kind, limit in metadata["limits"].items()]
    return tr("{kind} of {limits}", kind=name, limits=functools.reduce(_both, limits))


def _has_comma(hint: Any, metadata: Mapping[str, Any]) -> bool:
    """Whether the description of a type has parts, so that a comma must part it from what follows."""
    if hint is str:
        return len(metadata.get("choices") or ()) > 1
    if hint in (int, float):
        return len(metadata.get("limits", {})) > 1
    return get_origin(hint) is dict or (get_origin(hint) in (list, tuple) and get_args(hint)[0] is not Any)


def _either(first: str, second: str) -> str:
    return tr("{first} or {second}", first=first, second=second)


def _either_far(first: str, second: str) -> str:
    return tr("{first}, or {second}", first=first, second=second)


def _both(first: str, second: str) -> str:
    return tr("{first} and {second}", first=first, second=second)


def matches(value: Any, hint: Any) -> bool:
    """Whether a value from YAML or JSON has the type of a hint, as for the fields in :func:`read`."""
    return _convert(value, hint, {}) is not _BAD


_BAD = object()
_LARGEST = sys.float_info.max


def _value(raw: Any, hint: Any, metadata: Mapping[str, Any], key: str, faults: list[str], whole: type) -> Any:
    if dataclasses.is_dataclass(hint):
        return read(hint, raw, key, faults, whole)  # type: ignore[arg-type]
    value = _convert(raw, hint, metadata)
    if value is _BAD:
        faults.append(_fault(raw, hint, metadata, key))
        return None
    return value


def _fault(raw: Any, hint: Any, metadata: Mapping[str, Any], key: str) -> str:
    """The sentence on a value that does not have the type of a hint."""
    if isinstance(raw, str) and not _is_text(raw):
        return tr(
            "{key}: expected text without NUL and without bytes that are not UTF-8, got {value}",
            key=key,
            value=show(raw),
        )
    fault = tr("{key}: expected {wanted}, got {value}", key=key, wanted=describe(hint, metadata), value=show(raw))
    near = nearest(raw, metadata["choices"]) if metadata.get("choices") and isinstance(raw, str) else None
    if near:
        return fault + _meant(near)
    odd = [each for each in raw if not isinstance(each, str)] if isinstance(raw, Mapping) else []
    if odd:
        return fault + tr('; put the name {name} in quotes, as in "{name}"', name=show(odd[0]))
    return fault


def _convert(raw: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Return the value as the hint's type, or _BAD."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return raw
    if origin is Union:
        for alternative in args:
            value = _convert(raw, alternative, metadata)
            if value is not _BAD:
                return value
        return _BAD
    if hint is type(None):
        return None if raw is None else _BAD
    if origin in (list, tuple):
        if not isinstance(raw, (list, tuple)) or (origin is tuple and len(raw) != len(args)):
            return _BAD
        items = [_convert(item, args[0], metadata) for item in raw]
        return _BAD if any(item is _BAD for item in items) else origin(items)
    if hint is dict or origin is dict:
        if not isinstance(raw, Mapping):
            return _BAD
        if not args:
            return dict(raw)
        pairs = {_convert(k, args[0], {}): _convert(v, args[1], metadata) for k, v in raw.items()}
        return _BAD if _BAD in pairs or any(v is _BAD for v in pairs.values()) else pairs
    if hint is bool:
        return raw if isinstance(raw, bool) else _BAD
    if hint is str:
        return raw if isinstance(raw, str) and _is_text(raw) and _allowed(raw, metadata) else _BAD
    if isinstance(raw, bool):  # Python counts a bool as an int
        return _BAD
    number: Any = raw
    if isinstance(raw, str) and hint is float:  # YAML 1.1 reads 1e-3 as text
        try:
            number = float(raw)
        except ValueError:
            return _BAD
    if not isinstance(number, (int, float)) or not -_LARGEST <= number <= _LARGEST:  # excludes NaN too
        return _BAD
    if hint is int and not isinstance(number, int):
        return _BAD
    return hint(number) if _within(number, metadata.get("limits", {})) else _BAD


def _is_text(text: str) -> bool:
    """Whether a file name or a JSON file can hold the text: no NUL, no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _allowed(text: str, metadata: Mapping[str, Any]) -> bool:
    return metadata.get("choices") is None or text in metadata["choices"]


def _within(number: float, limits: Mapping[str, float]) -> bool:
    return (
        number >= limits.get("at_least", -math.inf)
        and number > limits.get("more_than", -math.inf)
        and number <= limits.get("at_most", math.inf)
        and number < limits.get("below", math.inf)
    )


def expect_type(name: str, value: object, *types: type) -> None:
    """Check an argument of a public function.

    Raises:
        TypeError: it is an instance of none of the types; a bool is no int.
    """
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types and object not in types):
        names = " or ".join("None" if each is type(None) else each.__name__ for each in types)
        raise TypeError(f"{name}: expected {names}, got {type(value).__name__} {show(value)}")


def expect_callable(name: str, value: object) -> None:
    """Check an argument that is called.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(value):
        raise TypeError(f"{name}: expected a class or a function, got {type(value).__name__} {show(value)}")
