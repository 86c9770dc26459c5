"""A reader of pickles that makes plain values, and objects of stand-in classes; anything else is refused.

Python's own reader trusts a file with its time and memory: a key can be a tuple that takes for ever to hash, and one
array of a small file can be made a thousand times. Here the work and the memory are bounded by the file's size.
"""

from __future__ import annotations

import collections
import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, Optional

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr

REPEATS = 4  # how often the content of a file may be used, on average

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}


class PickleReader:
    """Reads one pickle after the other from a file."""

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        allowed: Mapping[tuple[str, str], Any],
        persistent: Optional[Callable[[Any], Any]] = None,
    ) -> None:
        """
        Args:
            file: at the beginning of a pickle.
            size: of the file, in bytes.
            allowed: what stands for the functions and classes that a pickle may name, by module and name.
            persistent: returns the object of a persistent id.
        """
        self._file, self._size, self._allowed, self._persistent = file, size, allowed, persistent
        self._budget = REPEATS * size + 1000

    def load(self) -> Any:
        """Read the next pickle.

        Raises:
            ModelError: it names something that is not allowed, or uses its content too often.
            Exception: it is damaged; of nearly any kind.
        """
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below the marks
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(self._file):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._run(opcode.name, argument)
        raise ValueError("no end")

    def _run(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _ARGUMENTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            first = len(stack) - _TUPLES[name]
            stack[first:] = [tuple(stack[first:])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[self._index(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[self._index(argument)])
        elif name in ("GLOBAL", "INST"):
            self._push_global(*argument.split(" ", 1))
            if name == "INST":
                made, arguments = self._stack.pop(), self._pop_mark()
                self._call(made, arguments)
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            self._push_global(module, attribute)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            self._call(function, arguments)
        elif name == "BUILD":
            state = stack.pop()
            if hasattr(stack[-1], "__setstate__"):  # the attributes of a dictionary are no weights
                self._charge(state)
                stack[-1].__setstate__(state)
        elif name == "BINPERSID" and self._persistent is not None:
            stack.append(self._persistent(stack.pop()))
        elif name not in _IGNORED:
            self._run_container(name)

    def _run_container(self, name: str) -> None:
        stack = self._stack
        if name == "MARK":
            self._outer.append(stack)
            self._stack = []
        elif name == "POP" and stack:
            stack.pop()
        elif name in ("POP", "POP_MARK"):
            self._pop_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("EMPTY_LIST", "EMPTY_SET"):  # a set holds no weights, and stays empty
            stack.append([])
        elif name == "APPEND":
            value = stack.pop()
            _of(list, stack[-1]).append(value)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._set_items(stack[-1], [(key, value)])
        else:
            self._run_after_mark(name, self._pop_mark())

    def _run_after_mark(self, name: str, values: list[Any]) -> None:
        stack = self._stack
        if name == "TUPLE":
            stack.append(tuple(values))
        elif name == "LIST":
            stack.append(values)
        elif name == "APPENDS":
            _of(list, stack[-1]).extend(values)
        elif name == "DICT":
            stack.append({})
            self._set_items(stack[-1], zip(values[::2], values[1::2]))
        elif name == "SETITEMS":
            self._set_items(stack[-1], zip(values[::2], values[1::2]))
        elif name == "FROZENSET":
            stack.append([])
        elif name != "ADDITEMS":
            raise ValueError(name)

    def _pop_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _index(self, number: Any) -> int:
        """A number that a file of this size can contain."""
        if not 0 <= int(number) <= self._size:
            raise ValueError("an index beyond the file")
        return int(number)

    def _set_items(self, target: Any, items: Iterable[Any]) -> None:
        for key, value in items:
            if isinstance(key, int):
                self._index(key)
            _of(dict, target)[_of((str, int), key)] = value

    def _push_global(self, module: Any, name: Any) -> None:
        if (_of(str, module), _of(str, name)) not in self._allowed:
            raise ModelError(
                tr(
                    "is refused: it would run {module}.{name}; a weights file may contain arrays only",
                    module=module,
                    name=name,
                )
            )
        self._stack.append(self._allowed[module, name])

    def _call(self, function: Any, arguments: Any) -> None:
        if not callable(function):
            raise ValueError("a call of a value")
        self._charge(arguments)
        if function in (dict, collections.OrderedDict):
            self._stack.append(function())
            self._set_items(self._stack[-1], arguments[0] if arguments else ())
        else:
            self._stack.append(function(*arguments))

    def _charge(self, arguments: Iterable[Any]) -> None:
        """Count the content that a call reads or copies."""
        self._budget -= sum(len(value) for value in arguments if hasattr(value, "__len__"))
        if self._budget < 0:
            raise repeated()


def repeated() -> ModelError:
    """The error of a file that uses its content more than :data:`REPEATS` times."""
    return ModelError(
        tr("is refused: it uses the same data again and again, and would take far more memory than the file")
    )


def _of(kind: Any, value: Any) -> Any:
    """A value of an expected type."""
    if not isinstance(value, kind):
        raise TypeError(type(value).__name__)
    return value
