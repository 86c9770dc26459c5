"""Measures the ranges of the products' inputs, which int8 needs, and stores them beside the exported model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pplc_cli.base.errors import PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.bounded import read_bounded
from pplc_cli.base.storage.files import write_json
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.infer.network import Network
from pplc_cli.kernels.infer.operands import PlanOptions
from pplc_cli.kernels.infer.packing import ActivationRange

FILE = "inference_int8.json"
# Images per group; minimum and maximum of the groups are averaged. A range over all images would make the steps of most
# images coarse; the mean over single images would clip half of them.
GROUP = 8
_LARGEST_FILE = 1 << 22  # bytes; a network has at most a few thousand values
_LARGEST = 1e30  # far from float32's largest number, so that scales and their products stay finite


def measure_activation_ranges(graph: Graph, images: Iterable[np.ndarray]) -> dict[str, ActivationRange]:
    """Run images through a simplified graph in float32, and measure the input of each product over maps.

    Args:
        graph: for images of one size.
        images: float32 (3, H, W), normalised.

    Returns:
        By the names of the values, the mean over groups of :data:`GROUP` images of their minimum and maximum.
    """
    assert graph.size is not None
    network = Network(graph, graph.size, PlanOptions(fused=False))
    found: dict[str, list[ActivationRange]] = {}
    for number, image in enumerate(images):
        for name, values in network.inputs_of_products(image):
            groups, measured = found.setdefault(name, []), (float(values.min()), float(values.max()))
            if number % GROUP == 0:
                groups.append(measured)
            else:
                groups[-1] = min(groups[-1][0], measured[0]), max(groups[-1][1], measured[1])
    return {
        name: (float(np.mean([low for low, _ in groups])), float(np.mean([high for _, high in groups])))
        for name, groups in found.items()
    }


def write_activation_ranges(folder: Path, activation_ranges: Mapping[str, ActivationRange]) -> None:
    """Write ranges to an exported folder."""
    write_json(folder / FILE, {"spans": {name: list(ends) for name, ends in activation_ranges.items()}})


def read_activation_ranges(folder: Path) -> dict[str, ActivationRange]:
    """Read the file that :func:`write_activation_ranges` wrote.

    Raises:
        PredictError: the folder has no such file, or a damaged one.
    """
    try:
        content = json.loads(read_bounded(folder / FILE, _LARGEST_FILE))
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in content["spans"].items()}
        if not all(-_LARGEST <= low <= high <= _LARGEST for low, high in ranges.values()):
            raise ValueError(tr("a range is empty or not finite"))
        return ranges
    except FileNotFoundError:
        raise PredictError(
            tr("{folder} has no {file}; int8 needs: pplc export --precision int8", folder=folder, file=FILE)
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PredictError(
            tr("{file} is damaged ({reason}); run: pplc export --precision int8", file=folder / FILE, reason=error)
        ) from None
