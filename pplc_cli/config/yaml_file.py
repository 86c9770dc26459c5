"""YAML as plain data, with line numbers in errors and a bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

import yaml

from pplc_cli.base.errors import ConfigError
from pplc_cli.base.schema import nearest
from pplc_cli.base.storage.files import quoted, user_path

MAX_VALUES = 100_000  # in one file; an alias counts each time it is used


def read_yaml(path: Union[str, Path]) -> Any:
    """Read a YAML file as plain data; nothing in it is executed.

    Raises:
        ConfigError: the file is missing, not text, not YAML, or contains a key twice.
    """
    path = user_path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.y*ml") if p.is_file()) if path.parent.is_dir() else []
        near = nearest(path.name, beside)
        ending = f"; did you mean {path.with_name(near)}?" if near else ""
        raise ConfigError(str(path), [f"no such file{ending}"]) from None
    except OSError as error:
        if path.is_dir():
            advice = f"pplc init {quoted(str(path))} writes one for a folder of images"
            raise ConfigError(str(path), [f"is a folder, expected a YAML file; {advice}"]) from None
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["expected YAML in UTF-8, got other bytes; save it as UTF-8"]) from None
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(str(path), [f"{where}expected YAML: {problem}"]) from None
    except ValueError as error:
        raise ConfigError(str(path), [f"expected plain YAML: {error}"]) from None


def parse_yaml(text: str) -> Any:
    """Parse YAML text into plain data.

    Raises:
        yaml.YAMLError: it is not YAML, or not plain data.
        ValueError: it is nested too deeply, or too large with its aliases expanded.
    """
    try:
        value = yaml.load(text, _Loader)  # a SafeLoader that also refuses duplicate keys
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    waiting, count = [value], 0
    while waiting:
        count += 1
        if count > MAX_VALUES:  # also where an alias contains itself
            raise ValueError(f"it contains more than {MAX_VALUES} values, or an alias that contains itself")
        item = waiting.pop()
        if isinstance(item, (Mapping, list, tuple)):
            waiting.extend(item.values() if isinstance(item, Mapping) else item)
    return value


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError):  # 2026-13-45, !!bool maybe, !!timestamp never, ...
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"not a valid {kind}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        if not isinstance(node, yaml.MappingNode):
            return super().construct_mapping(node, deep)  # which raises a clear error
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *defaults, whose keys may be repeated
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
