"""The space that ``pplc tune`` searches: keys of the configuration with the values to try."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union, get_args, get_type_hints

from pplc_cli.base.errors import ConfigError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean, show
from pplc_cli.config.load import check_config
from pplc_cli.config.sections import Config
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.data.transforms.progressive import scaled
from pplc_cli.models.catalog import list_networks
from pplc_cli.models.registry import UNSTAGED, find_network, in_file
from pplc_cli.models.weights.builtin import builtin_names
from pplc_cli.models.weights.pretrained import has_weights

NETWORK, SIZE, AUGMENTATION = "model.name", "image_size", "augmentation"
AUGMENTATIONS: dict[str, tuple[list[Any], list[Any]]] = {  # transforms before and behind Normalize
    "own": ([], []),
    "colour": ([{"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.05}}], []),
    "strong": ([{"RandAugment": {"num_ops": 2, "magnitude": 9}}], [{"RandomErasing": {"prob": 0.25}}]),
}
MOST_MACS = 1_000  # millions, of the networks that are tried by default
LARGER = 1.25  # the second size that is tried by default, against the configuration's
STEP = 32  # pixels; light networks halve their input five times
_SEARCHED = ("model", "train", "data", "distill", "eval")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included.

    Attributes:
        low, high: the bounds.
        log: whether the logarithm is uniform.
        whole: whether they are integers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


Values = Union[Range, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        networks: names of the networks to try.
        sizes: sides of the images to try, in pixels; None: the one of the configuration, whatever it is.
        others: the values to try of every other key.
    """

    networks: tuple[str, ...]
    sizes: tuple[Optional[int], ...]
    others: dict[str, Values]


def read_space(config: Config) -> Space:
    """Read ``tune.space`` of a configuration, or make the default one.

    Raises:
        ConfigError: a key does not exist, a range is empty, or a value is not valid for its key.
    """
    own, size = config.model.name, _side(config)
    raw = config.tune.space
    if raw is None:
        rate, decay, smoothing = config.train.learning_rate, config.train.weight_decay, config.train.label_smoothing
        larger = round(LARGER * size / STEP) * STEP if size else None
        return Space(
            _networks_here(config),
            (size, larger) if size and larger != size else (size,),
            {
                "train.learning_rate": Range(rate / 10, rate * 3, log=True),
                "train.weight_decay": Range(min(1e-5, decay), max(1e-3, decay), log=True)
                if decay
                else (0.0, 1e-4, 1e-3),
                "train.label_smoothing": tuple(dict.fromkeys((smoothing, 0.0, 0.1, 0.2))),
                "train.transfer": _transfers(config),
                AUGMENTATION: tuple(AUGMENTATIONS),
            },
        )
    faults: list[str] = []
    values = {str(key): _values(str(key), value, faults) for key, value in raw.items()}
    known = [*_keys(), SIZE, AUGMENTATION]
    for key in values:
        if key not in known:
            faults.append(tr("tune.space.{key}: no such key{hint}", key=key, hint=did_you_mean(key, known)))
    if faults:
        raise ConfigError("tune", faults)
    found = {key: value for key, value in values.items() if value is not None}
    networks, sizes = found.pop(NETWORK, (own,)), found.pop(SIZE, (size,))
    _check_values(config, networks, sizes, found)
    return Space(_choices(networks), _choices(sizes), found)


def _choices(values: Values) -> tuple[Any, ...]:
    assert isinstance(values, tuple)
    return values


def _keys() -> list[str]:
    """The dotted keys of the sections that a search may change."""
    hints = get_type_hints(Config)
    return [f"{name}.{field.name}" for name in _SEARCHED for field in dataclasses.fields(hints[name])]


def _values(key: str, raw: Any, faults: list[str]) -> Optional[Values]:
    """Read the values of a key: a list, or a mapping of low, high and perhaps log."""
    name = f"tune.space.{key}"
    if isinstance(raw, (list, tuple)):
        if not raw:
            faults.append(tr("{name}: expected at least one value, got an empty list", name=name))
            return None
        return tuple(raw)
    if not isinstance(raw, Mapping) or not {"low", "high"} <= set(raw) <= {"low", "high", "log"}:
        faults.append(
            tr("{name}: expected a list, or low, high and perhaps log: true, got {value}", name=name, value=show(raw))
        )
        return None
    low, high, log = raw["low"], raw["high"], raw.get("log", False)
    with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-3 as text
        low, high = (float(each) if isinstance(each, str) else each for each in (low, high))
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (low, high))
    if not numbers or not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        faults.append(
            tr(
                "{name}: the range is empty: expected two numbers, low below high, got {low} and {high}",
                name=name,
                low=show(low),
                high=show(high),
            )
        )
        return None
    if log and low <= 0:
        faults.append(tr("{name}: a logarithmic range needs low above 0, got {low}", name=name, low=show(low)))
        return None
    return Range(low, high, bool(log), _is_whole(key) and all(isinstance(each, int) for each in (low, high)))


def _is_whole(key: str) -> bool:
    section, _, name = key.partition(".")
    hint = get_type_hints(get_type_hints(Config)[section]).get(name) if section in _SEARCHED else None
    return key == SIZE or hint is int or int in get_args(hint)


def _check_values(config: Config, networks: Values, sizes: Values, others: Mapping[str, Values]) -> None:
    """Check every choice, and both ends of every range, as if the configuration had it.

    Raises:
        ConfigError: lists all faults.
    """
    faults: list[str] = []
    for key, values in ((NETWORK, networks), (SIZE, sizes), *others.items()):
        if isinstance(values, Range) and key in (NETWORK, SIZE):
            faults.append(tr("tune.space.{key}: expected a list of values", key=key))
            continue
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            try:
                apply(config, {key: value})
            except ConfigError as error:
                faults += [fault if fault.startswith("tune.") else f"tune.space: {fault}" for fault in error.faults]
    if faults:
        raise ConfigError("tune", list(dict.fromkeys(faults)))


def apply(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the configuration with values of the space.

    Args:
        config: the configuration.
        values: by key.

    Raises:
        ConfigError: a value is not valid.
    """
    values = dict(values)
    plain = config.to_dict()
    spec = None if in_file(config.model.name) else find_network(config.model.name)
    if spec is not None and values.get(NETWORK, config.model.name) != config.model.name:
        mean, std = (list(each) for each in spec.normalization)
        for section in ("train", "eval"):  # the other network has its own values
            plain[section]["transforms"] = [
                "Normalize" if each == {"Normalize": {"mean": mean, "std": std}} else each
                for each in plain[section]["transforms"]
            ]
    side, wanted = _side(config), values.pop(SIZE, None)
    whole = isinstance(wanted, int) and not isinstance(wanted, bool)
    if wanted is not None and wanted != side and (not whole or wanted < STEP):
        raise ConfigError(
            "tune",
            [
                tr(
                    "tune.space.image_size: expected pixels, at least {least}, got {value}",
                    least=STEP,
                    value=show(wanted),
                )
            ],
        )
    if wanted is not None and side is None:
        raise ConfigError(
            "tune", [tr("tune.space.image_size: training and evaluation have no common, square size to change")]
        )
    if wanted is not None and side and wanted != side:
        for section in ("train", "eval"):
            plain[section]["transforms"] = scaled(plain[section]["transforms"], wanted / side)
    augmentation = values.pop(AUGMENTATION, "own")
    if not isinstance(augmentation, str) or augmentation not in AUGMENTATIONS:
        hint = did_you_mean(str(augmentation), AUGMENTATIONS)
        raise ConfigError(
            "tune", [tr("tune.space.augmentation: unknown {value}{hint}", value=show(augmentation), hint=hint)]
        )
    plain["train"]["transforms"] = _augmented(plain["train"]["transforms"], augmentation)
    return check_config(plain, values, source="tune")


def _augmented(transforms: Sequence[Any], augmentation: str) -> list[Any]:
    """Put transforms around Normalize; those that are there already stay as they are."""
    names = [next(iter(each)) if isinstance(each, Mapping) else each for each in transforms]
    place = names.index("Normalize") if "Normalize" in names else len(names)
    before, behind = ([each for each in part if next(iter(each)) not in names] for part in AUGMENTATIONS[augmentation])
    return [*transforms[:place], *before, *transforms[place : place + 1], *behind, *transforms[place + 1 :]]


def _side(config: Config) -> Optional[int]:
    """The side of square images that training and evaluation share; None: they have no such side."""
    pipelines = Pipeline(config.train.transforms, training=True), Pipeline(config.eval.transforms, training=False)
    sizes = {pipeline.size for pipeline in pipelines}
    height, width = next(iter(sizes))
    return height if len(sizes) == 1 and height == width else None


def _transfers(config: Config) -> tuple[str, ...]:
    """The values of ``train.transfer`` that suit a configuration, its own first."""
    own = config.train.transfer
    fixed = in_file(config.model.name) or config.train.freeze is not None or config.distill.teacher is not None
    if fixed or find_network(config.model.name).family in UNSTAGED:
        return (own,)
    if not has_weights(find_network(config.model.name), config.model.pretrained):
        return (own,)
    return tuple(dict.fromkeys((own, "stages", *(() if config.train.progressive_from else ("head",)))))


def _networks_here(config: Config) -> tuple[str, ...]:
    """The configuration's network, and the light ones whose ImageNet weights are on this machine."""
    own = config.model.name
    if config.model.pretrained != "auto":  # weights of this network
        return (own,)
    others = [each.name for each in list_networks(max_macs=MOST_MACS, cached=True)]
    others = [name for name in others if find_network(name).family not in UNSTAGED]
    if not others and own not in builtin_names():
        others = list(builtin_names())
    return tuple(dict.fromkeys([own, *others]))
