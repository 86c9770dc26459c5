"""Weights that others trained, under other names, for the zoo's networks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.files import PathLike, atomic_file, user_path
from pplc_cli.models.options import AS_KNOWN, ModelOptions
from pplc_cli.models.registry import NetworkSpec, build_network, find_network, network_names
from pplc_cli.models.weights.fit import find_faults, shortened
from pplc_cli.models.weights.manifest import IMPORTED, Cache, Entry
from pplc_cli.models.weights.read import read_weights

# A key that every network of a family has and no other network.
_TELLING = {
    "pplcnet": "blocks2.0.dw_conv.conv.weight",
    "pplcnetv2": "stem.1.dw_conv.conv.weight",
    "squeezenext": "tail.conv.weight",
    "fasternet": "patch_embed.proj.weight",
}
_TIMM_STEM = "conv_stem.weight"
_TIMM_OUTSIDE = {"conv_stem": "conv1.conv", "bn1": "conv1.bn", "conv_head": "last_conv", "classifier": "fc"}
_TIMM_INSIDE = {
    "conv_dw": "dw_conv.conv",
    "bn1": "dw_conv.bn",
    "se.conv_reduce": "se.conv1",
    "se.conv_expand": "se.conv2",
    "conv_pw": "pw_conv.conv",
    "bn2": "pw_conv.bn",
}
_TIMM_LEAVES = {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}


class Imported(NamedTuple):
    """Weights by our names.

    Attributes:
        spec: the network that they fit.
        options: ``model.options`` that it needs.
        arrays: float32, by the names of its state dict.
    """

    spec: NetworkSpec
    options: ModelOptions
    arrays: dict[str, np.ndarray]

    def options_set(self) -> dict[str, Any]:
        """The options that are not null."""
        return {key: value for key, value in vars(self.options).items() if value is not None}


def import_weights(path: PathLike, model: Optional[str] = None) -> Imported:
    """Read a .pdparams or .safetensors file with PaddleClas's or timm's names, or an .onnx file of PP-LCNet.

    In these networks' outputs before the softmax, nothing changes: our PP-LCNet multiplies by 0.8 before the
    classifier at inference (its dropout), so the classifier of a network that does not is divided by 0.8.

    Args:
        path: the file.
        model: the network; None: the one whose names and shapes are the file's.

    Raises:
        ModelError: the file cannot be read, would run code, or fits no network; the text names what does not fit.
    """
    from pplc_cli.base.paddle import load_paddle

    path = user_path(path)
    spec = find_network(model) if model else None
    load_paddle()
    if path.suffix.lower() == ".onnx":
        from pplc_cli.models.weights.onnx_reader import read_graph

        graph = read_graph(path)
        imported = _recognise(graph.arrays, spec, str(path), graph.activation)
        network = _unfilled(imported.spec, imported.arrays, imported.options)
        graph.check(network)
        return _scaled(imported, network, graph.scale)
    arrays = read_weights(path)
    if _TIMM_STEM in arrays:
        imported = _recognise(_from_timm(arrays, str(path)), spec, str(path))
        return _scaled(imported, _unfilled(imported.spec, imported.arrays, imported.options), 1.0)
    return _recognise(arrays, spec, str(path))


def _from_timm(arrays: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """timm's LCNet by our names; its blocks, stage after stage, are our 13 in their order."""
    from pplc_cli.models.families.pplcnet import BLOCKS

    numbers: set[tuple[int, int]] = set()
    parts: list[tuple[Optional[tuple[int, int]], str, str, str]] = []
    for key in arrays:
        found = re.fullmatch(r"(?:blocks\.(\d+)\.(\d+)\.)?(.+)\.(\w+)", key)
        block = (int(found[1]), int(found[2])) if found and found[1] else None
        names = _TIMM_INSIDE if block else _TIMM_OUTSIDE
        if found and found[4] == "num_batches_tracked":
            continue
        if not found or found[3] not in names or found[4] not in _TIMM_LEAVES:
            raise ModelError(f"{where}: of timm's networks only LCNet (lcnet_*) can be imported, which has no {key}")
        if block:
            numbers.add(block)
        parts.append((block, names[found[3]], _TIMM_LEAVES[found[4]], key))
    if len(numbers) != len(BLOCKS):
        raise ModelError(f"{where}: expected the {len(BLOCKS)} blocks of timm's LCNet, got {len(numbers)}")
    ours = dict(zip(sorted(numbers), BLOCKS))
    result = {}
    for block, layer, leaf, key in parts:
        name = ".".join(([ours[block]] if block else []) + [layer, leaf])
        result[name] = arrays[key].T if name == "fc.weight" else arrays[key]
    return result


def _recognise(
    arrays: dict[str, np.ndarray], spec: Optional[NetworkSpec], where: str, activation: Optional[str] = None
) -> Imported:
    """The network of the zoo with these keys and shapes."""
    arrays = {key: np.ascontiguousarray(array, np.float32) for key, array in arrays.items()}
    if spec is not None:
        candidates = [spec]
    else:
        family = next((name for name, key in _TELLING.items() if key in arrays), "paddle_vision")
        candidates = [spec for spec in map(find_network, network_names()) if spec.family == family]
    nearest: tuple[int, str, list[str]] = (len(arrays) + 10000, "", [])
    for candidate in candidates:
        options = _options(arrays, activation) if candidate.family == "pplcnet" else AS_KNOWN
        state = _unfilled(candidate, arrays, options).state_dict()
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        faults, others = find_faults(shapes, arrays, candidate.classifier)
        faults += [f"{key} does not fit the other numbers of classes" for key in others]
        if not faults:
            return Imported(candidate, options, {key: arrays[key] for key in shapes})
        nearest = min(nearest, (len(faults), candidate.name, faults))
    which = "does not fit" if spec else "fits no network of the zoo; the nearest is"
    raise ModelError(f"{where} {which} {nearest[1]}: {shortened(nearest[2])}")


def _unfilled(spec: NetworkSpec, arrays: dict[str, np.ndarray], options: ModelOptions) -> Any:
    """The network for as many classes as the arrays have; it has shapes and no numbers, which takes milliseconds."""
    from pplc_cli.base.paddle import load_paddle

    bias, weight = (arrays.get(f"{spec.classifier}.{leaf}") for leaf in ("bias", "weight"))
    classes = bias.shape[0] if bias is not None and bias.ndim == 1 else 0
    if not classes and weight is not None and weight.ndim == 2:  # SqueezeNext's has no bias
        classes = weight.shape[1]
    with load_paddle().LazyGuard():
        return build_network(spec.name, max(1, classes), options=options)


def _options(arrays: dict[str, np.ndarray], activation: Optional[str]) -> ModelOptions:
    """What the arrays say of ``model.options``; they do not tell the activation or a dilated stem."""
    from pplc_cli.models.families.pplcnet import BLOCKS, STAGES

    rows = [row for stage in STAGES.values() for row in stage]
    se = [f"{block}.se.conv1.weight" in arrays for block in BLOCKS]
    kernels = [arrays.get(f"{block}.dw_conv.conv.weight") for block in BLOCKS]
    large = [kernel is not None and kernel.ndim == 4 and kernel.shape[-1] == 5 for kernel in kernels]
    return ModelOptions(
        activation=activation,
        se_blocks=None if se == [row.se for row in rows] else _numbers(se),
        large_kernel_blocks=None if large == [row.kernel == 5 for row in rows] else _numbers(large),
        last_conv=None if "last_conv.weight" in arrays else False,
        last_conv_bias=True if "last_conv.bias" in arrays else None,
        norm=None if "conv1.bn._mean" in arrays else "group",
    )


def _numbers(chosen: list[bool]) -> list[int]:
    return [number for number, yes in enumerate(chosen, 1) if yes]


def _scaled(imported: Imported, network: Any, scale: float) -> Imported:
    """The classifier for our dropout, where the network that was imported multiplies by ``scale`` in its place."""
    factor = scale / (1 - network.dropout.p)
    if abs(factor - 1) > 1e-6:  # more than rounding of 0.8
        imported.arrays["fc.weight"] = (imported.arrays["fc.weight"] * np.float64(factor)).astype(np.float32)
    return imported


def write_import(imported: Imported, origin: PathLike, output: Optional[PathLike] = None) -> Path:
    """Write imported weights as .safetensors, with their network and options in the file's metadata.

    Args:
        imported: what :func:`import_weights` gives.
        origin: the file they are from, which the manifest names.
        output: the file to write; None: in the cache, where it is recorded.

    Raises:
        ModelError: the cache has another import of that name, or its manifest is damaged.
        PplcError: the file cannot be written.
    """
    from safetensors.numpy import save_file

    origin, cache = user_path(origin).absolute(), Cache()
    path = user_path(output) if output else cache.folder / IMPORTED / f"{origin.stem}.safetensors"
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: expected a file that ends with .safetensors")
    name = cache.name_of(path)
    if name is not None:
        entry = cache.entries().get(name)
        if entry is not None and entry.url != str(origin) and path.is_file():
            raise ModelError(f"{path} is the import of {entry.url}; name another file with --output FILE")
    metadata = {"network": imported.spec.name, "options": json.dumps(imported.options_set()), "origin": origin.name}
    with atomic_file(path) as temporary:
        save_file(imported.arrays, temporary, metadata)
    if name is not None:
        cache.record(name, Entry.of(path, str(origin), imported.spec.name, IMPORTED))
    return path
