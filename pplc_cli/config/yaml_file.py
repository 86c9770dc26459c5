"""YAML as plain data, with line numbers in errors; what it may cost in time and memory is bounded."""

from __future__ import annotations

import math
from typing import Any

import yaml

from pplc_cli.base.errors import ConfigError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import nearest
from pplc_cli.base.storage.files import PathLike, quoted, user_path

MAX_BYTES = 2_000_000  # of a file: the names of 20,000 classes and more; PyYAML reads 100 to 300 KB in a second
MAX_VALUES = 100_000  # in one file; an alias counts each time it is used
MAX_DIGITS = 400  # of a number; longer ones take PyYAML time that grows with their square
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_yaml(path: PathLike) -> Any:
    """Read a YAML file as plain data; nothing in it is executed.

    Raises:
        ConfigError: the file is missing, too large, not text, not YAML, or contains a key twice.
    """
    path = user_path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # also of a device, which has no end
        if len(content) > MAX_BYTES:
            fault = tr("is larger than {limit:,} bytes, too large for a configuration", limit=MAX_BYTES)
            raise ConfigError(str(path), [fault])
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.y*ml") if p.is_file()) if path.parent.is_dir() else []
        near = nearest(path.name, beside)
        fault = tr("no such file; did you mean {file}?", file=path.with_name(near)) if near else tr("no such file")
        raise ConfigError(str(path), [fault]) from None
    except OSError as error:
        if path.is_dir():
            fault = tr(
                "is a folder, expected a YAML file; pplc init {folder} writes one for a folder of images",
                folder=quoted(str(path)),
            )
        else:
            fault = tr("cannot be read: {reason}", reason=error.strerror)
        raise ConfigError(str(path), [fault]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), [tr("expected YAML in UTF-8, got other bytes; save it as UTF-8")]) from None
    except ValueError:
        raise ConfigError(repr(str(path)), [tr("is no file name: it contains NUL")]) from None
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if mark:
            fault = tr("line {line}: expected YAML: {problem}", line=mark.line + 1, problem=problem)
        else:
            fault = tr("expected YAML: {problem}", problem=problem)
        raise ConfigError(str(path), [fault]) from None
    except ValueError as error:
        raise ConfigError(str(path), [tr("expected plain YAML: {reason}", reason=error)]) from None


def parse_yaml(text: str) -> Any:
    """Parse YAML text into plain data.

    What aliases and merges (``<<``) expand to is counted before it is built.

    Raises:
        yaml.YAMLError: it is not YAML, or not plain data.
        ValueError: it is nested too deeply, or too large with its aliases expanded.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(tr("it is nested too deeply")) from None
    finally:
        loader.dispose()


def _count(node: yaml.Node, counts: dict[int, float]) -> float:
    """The number of values in a node, with aliases and merges expanded.

    Args:
        node: part of a document.
        counts: those of the nodes that are counted; an alias is the same node again.

    Raises:
        ValueError: there are too many.
    """
    if id(node) not in counts:
        counts[id(node)] = math.inf  # until it is known: a node that contains itself has no end
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
        counts[id(node)] = 1 + sum(_count(part, counts) for part in flat)
    if counts[id(node)] > MAX_VALUES:
        raise ValueError(tr("it contains more than {limit} values, or an alias that contains itself", limit=MAX_VALUES))
    return counts[id(node)]


class _Loader(yaml.SafeLoader):
    """A SafeLoader that also refuses duplicate keys, and names the line of every value that it cannot build."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
                raise ValueError
            return super().construct_object(node, deep)
        except (
            ValueError,
            KeyError,
            AttributeError,
            TypeError,
            ArithmeticError,
            IndexError,
        ):  # 2026-13-45, !!bool maybe, !!timestamp never, ...
            kind = node.tag.rpartition(":")[2]
            problem = tr("not a valid {kind}", kind=kind)
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        if not isinstance(node, yaml.MappingNode):
            return super().construct_mapping(node, deep)  # which raises a clear error
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *defaults, whose keys may be repeated
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                problem = tr("a key must be a plain value")
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = tr("the key {key!r} appears twice", key=key)
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
