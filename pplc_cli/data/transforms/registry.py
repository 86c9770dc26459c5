"""The transforms by name: those of pplc, and those of the user's own."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Optional, get_args, get_type_hints

import numpy as np

from pplc_cli.base.errors import DataError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import expect_callable, expect_type, read
from pplc_cli.data.transforms.augment import ColorJitter, RandAugment, RandomBlur, RandomDistort, RandomErasing
from pplc_cli.data.transforms.basic import (
    CenterCrop,
    Normalize,
    Padding,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizeByShort,
    RandomScaleAspect,
    RandomVerticalFlip,
    Resize,
    ResizeByLong,
    ResizeByShort,
    Rng,
    Transform,
)
from pplc_cli.data.transforms.mixing import CutMix, Mixup

_SINGLE = (
    Resize, ResizeByShort, RandomResizeByShort, ResizeByLong, CenterCrop, RandomCrop, RandomScaleAspect, Padding,
    RandomHorizontalFlip, RandomVerticalFlip, RandomDistort, ColorJitter, RandomBlur, RandAugment, RandomErasing,
    Normalize,
)  # fmt: skip
TRANSFORMS: dict[str, type] = {cls.__name__: cls for cls in (*_SINGLE, Mixup, CutMix)}
_PLAIN = {bool, int, float, str, list, type(None), Any}  # types that YAML can give to a parameter


@dataclasses.dataclass(frozen=True)
class OwnTransform(Transform):
    """A transform of the user's own with its parameters; it is random and keeps the size of the image.

    Attributes:
        name: its name in the configuration.
        function: from an image and random numbers to an image; None: its file was not loaded, it can only be named.
    """

    name: str
    function: Optional[Callable[[np.ndarray, Rng], Any]]

    def __call__(self, image: np.ndarray, rng: Rng) -> np.ndarray:
        assert self.function is not None
        # A copy: the given array may be mirrored, or a view of the cache, which must not change.
        result = self.function(np.array(image, order="C"), rng)
        if not isinstance(result, np.ndarray) or result.dtype != np.uint8 or result.shape != image.shape:
            found = f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
            raise DataError(
                tr(
                    "{name}: expected an array like the image, uint8 {shape}, got {found}",
                    name=self.name,
                    shape=image.shape,
                    found=found,
                )
            )
        return result


@dataclasses.dataclass(frozen=True)
class _Own:
    factory: Callable[..., Any]
    parameters: type  # a dataclass with the arguments that the configuration may set
    code: Optional[str]


_OWN: dict[str, _Own] = {}


def register_transform(name: str, factory: Callable[..., Any], *, code: Optional[str] = None) -> None:
    """Add a transform of your own, which ``train.transforms`` then finds by its name.

    It is for training only: an exported folder could not contain it. The configuration sets its parameters by name;
    they are checked against their type hints: bool, int, float, str, lists of these, Optional.

    Args:
        name: a name that no transform of pplc has; the same name again replaces the transform.
        factory: a function ``(image, rng, **parameters)``, or a class whose constructor takes the parameters and whose
            objects are called as ``(image, rng)``. The image is uint8 RGB, shape (H, W, 3), and may be changed in
            place. ``rng`` is a ``numpy.random.Generator``; runs are repeatable if all random numbers come from it. The
            result has the same dtype and shape. Several threads call it at once.
        code: SHA-256 of the file with ``factory``, which runs record; None: it is not checked.

    Raises:
        TypeError: ``name`` is no string, ``factory`` cannot be called, or a parameter has no type hint, or another one.
        DataError: a transform of pplc has the name.
    """
    expect_type("name", name, str)
    expect_callable("factory", factory)
    if name in TRANSFORMS:
        raise DataError(tr("pplc has a transform {name!r} already; choose another name", name=name))
    _OWN[name] = _Own(factory, _parameters(name, factory), code)


def own_transforms() -> list[str]:
    """The names of all registered transforms."""
    return list(_OWN)


def transform_code(name: str) -> Optional[str]:
    """The SHA-256 of the file that defines a registered transform, or None."""
    return _OWN[name].code if name in _OWN else None


def read_transform(name: str, arguments: Any, key: str, faults: list[str]) -> Any:
    """Build a transform from its arguments in the configuration; None if there were faults.

    Args:
        name: of a transform of pplc, or a registered one.
        arguments: a mapping, or None.
        key: the dotted key of the transform.
        faults: every fault is appended to this list.
    """
    if name in TRANSFORMS:
        return read(TRANSFORMS[name], arguments, key, faults)
    own = _OWN[name]
    values: Any = read(own.parameters, arguments, key, faults)
    if values is None:
        return None
    given = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    if not inspect.isclass(own.factory):
        return OwnTransform(name, functools.partial(own.factory, **given))
    made = own.factory(**given)
    if not callable(made):
        faults.append(tr("{key}: objects of the class cannot be called; add __call__(self, image, rng)", key=key))
        return None
    return OwnTransform(name, made)


def _parameters(name: str, factory: Callable[..., Any]) -> type:
    """A dataclass of the parameters that the configuration may set."""
    if dataclasses.is_dataclass(factory) and isinstance(factory, type):
        return factory
    is_class = inspect.isclass(factory)
    parameters = list(inspect.signature(factory).parameters.values())[0 if is_class else 2 :]
    hints = get_type_hints(factory.__init__ if is_class else factory)
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = hints.get(parameter.name)
        if not _is_plain(hint):
            raise TypeError(
                f"{name}: the parameter {parameter.name} needs a type hint of bool, int, float, str, a list of these, "
                f"or Optional, as in {parameter.name}: float"
            )
        fields.append((parameter.name, hint, _field(parameter.default)))
    fields.sort(key=lambda field: field[2].default_factory is not dataclasses.MISSING)  # required ones come first
    return dataclasses.make_dataclass(f"{name} parameters".replace(" ", "_"), fields)


def _field(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return dataclasses.field()
    return dataclasses.field(default_factory=lambda: default)


def _is_plain(hint: Any) -> bool:
    """Whether the schema can check the type."""
    return hint in _PLAIN or (bool(get_args(hint)) and all(map(_is_plain, get_args(hint))))
