"""Identify and convert weights trained elsewhere to this package's networks and names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
from safetensors.numpy import save

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import EXCLUSIVE, load_paddle
from pplc_cli.base.storage.files import PathLike, atomic_file, user_path
from pplc_cli.models.options import PUBLISHED_DESIGN, ModelOptions
from pplc_cli.models.registry import NetworkSpec, build_network, find_network, network_names
from pplc_cli.models.weights.fit import find_faults, shortened
from pplc_cli.models.weights.formats.onnx_reader import read_graph
from pplc_cli.models.weights.formats.read import is_of_timm, read_weights
from pplc_cli.models.weights.manifest import IMPORTED, Cache, Entry

# A key that identifies each family.
_FAMILY_KEYS = {
    "pplcnet": "blocks2.0.dw_conv.conv.weight",
    "pplcnetv2": "stem.1.dw_conv.conv.weight",
    "squeezenext": "tail.conv.weight",
    "fasternet": "patch_embed.proj.weight",
}
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
    """Weights converted to this package's names.

    Attributes:
        spec: the network that they fit.
        options: its ``model.options``.
        arrays: float32, by the keys of its state dict.
    """

    spec: NetworkSpec
    options: ModelOptions
    arrays: dict[str, np.ndarray]

    def options_set(self) -> dict[str, Any]:
        """The options that are not null."""
        return {key: value for key, value in vars(self.options).items() if value is not None}


def import_weights(path: PathLike, model: Optional[str] = None) -> Imported:
    """Read a file with PaddleClas's or timm's names (see :func:`read_weights`), or an .onnx file of PP-LCNet.

    The logits stay the same. PP-LCNet's dropout multiplies by 0.8 before the classifier at inference, so the classifier
    of a network without this factor is divided by 0.8.

    Args:
        path: the file.
        model: name of the network; None: identify it by names and shapes.

    Raises:
        ModelError: the file cannot be read, would run code, or fits no network; the message names the misfits.
    """
    path = user_path(path)
    spec = find_network(model) if model else None
    load_paddle()
    if path.suffix.lower() == ".onnx":
        graph = read_graph(path)
        imported = _identify(graph.arrays, spec, str(path), graph.activation)
        network = _build_without_values(imported.spec, imported.arrays, imported.options)
        graph.check(network)
        return _scale_classifier(imported, network, graph.scale)
    arrays = read_weights(path)
    if is_of_timm(arrays):
        imported = _identify(_from_timm(arrays, str(path)), spec, str(path))
        return _scale_classifier(imported, _build_without_values(imported.spec, imported.arrays, imported.options), 1.0)
    return _identify(arrays, spec, str(path))


def _from_timm(arrays: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Rename the arrays of timm's LCNet; its blocks, stage by stage, are the 13 blocks of PP-LCNet in order."""
    from pplc_cli.models.families.pplcnet import BLOCKS  # loads Paddle

    numbers: set[tuple[int, int]] = set()
    parts: list[tuple[Optional[tuple[int, int]], str, str, str]] = []
    for key in arrays:
        found = re.fullmatch(r"(?:blocks\.(\d+)\.(\d+)\.)?(.+)\.(\w+)", key)
        block = (int(found[1]), int(found[2])) if found and found[1] else None
        names = _TIMM_INSIDE if block else _TIMM_OUTSIDE
        if found and found[4] == "num_batches_tracked":
            continue
        if not found or found[3] not in names or found[4] not in _TIMM_LEAVES:
            raise ModelError(
                tr(
                    "{where}: of timm's networks, only LCNet (lcnet_*) can be imported; it has no {key}",
                    where=where,
                    key=key,
                )
            )
        if block:
            numbers.add(block)
        parts.append((block, names[found[3]], _TIMM_LEAVES[found[4]], key))
    if len(numbers) != len(BLOCKS):
        raise ModelError(
            tr(
                "{where}: expected the {expected} blocks of timm's LCNet, got {count}",
                where=where,
                expected=len(BLOCKS),
                count=len(numbers),
            )
        )
    ours = dict(zip(sorted(numbers), BLOCKS))
    result = {}
    for block, layer, leaf, key in parts:
        name = ".".join(([ours[block]] if block else []) + [layer, leaf])
        result[name] = arrays[key].T if name == "fc.weight" else arrays[key]
    return result


def _identify(
    arrays: dict[str, np.ndarray], spec: Optional[NetworkSpec], where: str, activation: Optional[str] = None
) -> Imported:
    """Find the network with these keys and shapes."""
    arrays = {key: np.ascontiguousarray(array, np.float32) for key, array in arrays.items()}
    if spec is not None:
        candidates = [spec]
    else:
        family = next((name for name, key in _FAMILY_KEYS.items() if key in arrays), "paddle_vision")
        candidates = [spec for spec in map(find_network, network_names()) if spec.family == family]
    nearest: tuple[int, str, list[str]] = (len(arrays) + 10000, "", [])
    for candidate in candidates:
        options = _infer_options(arrays, activation) if candidate.family == "pplcnet" else PUBLISHED_DESIGN
        state = _build_without_values(candidate, arrays, options).state_dict()
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        faults, others = find_faults(shapes, arrays, candidate.classifier)
        faults += [tr("{key} has another number of classes than the rest", key=key) for key in others]
        if not faults:
            return Imported(candidate, options, {key: arrays[key] for key in shapes})
        nearest = min(nearest, (len(faults), candidate.name, faults))
    name, misfits = nearest[1], shortened(nearest[2])
    if spec is not None:
        raise ModelError(tr("{where} does not fit {name}: {faults}", where=where, name=name, faults=misfits))
    raise ModelError(
        tr(
            "{where} does not fit any network of pplc models; the nearest is {name}: {faults}",
            where=where,
            name=name,
            faults=misfits,
        )
    )


def _build_without_values(spec: NetworkSpec, arrays: dict[str, np.ndarray], options: ModelOptions) -> Any:
    """Build the network for the arrays' number of classes, with shapes but without values: this takes milliseconds."""
    bias, weight = (arrays.get(f"{spec.classifier}.{leaf}") for leaf in ("bias", "weight"))
    classes = bias.shape[0] if bias is not None and bias.ndim == 1 else 0
    if not classes and weight is not None and weight.ndim == 2:  # the classifier of SqueezeNext has no bias
        classes = weight.shape[1]
    with EXCLUSIVE, load_paddle().LazyGuard():
        return build_network(spec.name, max(1, classes), options=options)


def _infer_options(arrays: dict[str, np.ndarray], activation: Optional[str]) -> ModelOptions:
    """Infer ``model.options`` from the arrays; activation and dilated stem cannot be inferred."""
    from pplc_cli.models.families.pplcnet import BLOCKS, STAGES  # loads Paddle

    rows = [row for stage in STAGES.values() for row in stage]
    se = [f"{block}.se.conv1.weight" in arrays for block in BLOCKS]
    kernels = [arrays.get(f"{block}.dw_conv.conv.weight") for block in BLOCKS]
    large = [kernel is not None and kernel.ndim == 4 and kernel.shape[-1] == 5 for kernel in kernels]
    return ModelOptions(
        activation=activation,
        se_blocks=None if se == [row.se for row in rows] else _true_positions(se),
        large_kernel_blocks=None if large == [row.kernel == 5 for row in rows] else _true_positions(large),
        last_conv=None if "last_conv.weight" in arrays else False,
        last_conv_bias=True if "last_conv.bias" in arrays else None,
        norm=None if "conv1.bn._mean" in arrays else "group",
    )


def _true_positions(chosen: list[bool]) -> list[int]:
    return [number for number, yes in enumerate(chosen, 1) if yes]


def _scale_classifier(imported: Imported, network: Any, scale: float) -> Imported:
    """Rescale the classifier if the imported network multiplies by ``scale`` where ours applies its dropout factor."""
    factor = scale / (1 - network.dropout.p)
    if abs(factor - 1) > 1e-6:  # more than a rounding error of 0.8
        imported.arrays["fc.weight"] = (imported.arrays["fc.weight"] * np.float64(factor)).astype(np.float32)
    return imported


def write_import(imported: Imported, origin: PathLike, output: Optional[PathLike] = None) -> Path:
    """Write imported weights as .safetensors, with network and options in the metadata.

    Args:
        imported: the result of :func:`import_weights`.
        origin: the original file, for the manifest.
        output: the file to write; None: a file in the cache. Files in the cache are recorded.

    Raises:
        ModelError: the cache has an import of that name from another file, or its manifest is damaged.
        PplcError: the file cannot be written.
    """
    origin, cache = user_path(origin).absolute(), Cache()
    path = user_path(output) if output else cache.folder / IMPORTED / f"{origin.stem}.safetensors"
    if path.suffix != ".safetensors":
        raise ModelError(tr("{path}: expected a file name that ends with .safetensors", path=path))
    metadata = {"network": imported.spec.name, "options": json.dumps(imported.options_set()), "origin": origin.name}
    content = save(imported.arrays, metadata)
    name = cache.name_of(path)
    if name is None:
        _write(path, content)
        return path
    with cache.locked(name):
        entry = cache.entries().get(name)
        if entry is not None and entry.url != str(origin) and path.is_file():
            raise ModelError(
                tr(
                    "{path} was imported from {origin}; choose another file with --output FILE",
                    path=path,
                    origin=entry.url,
                )
            )
        _write(path, content)
        cache.record(name, Entry.of(path, str(origin), imported.spec.name, IMPORTED))
    return path


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
