"""Between which numbers the inputs of products lie, which products of bytes must know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pplc_cli.base.errors import PredictError
from pplc_cli.base.files import write_json
from pplc_cli.kernels.graph.graph import Graph
from pplc_cli.kernels.infer.network import Network
from pplc_cli.kernels.infer.operands import How
from pplc_cli.kernels.infer.packing import Span

FILE = "inference_int8.json"
# Pictures whose least and greatest numbers count together: those of all would make the steps of most pictures coarse,
# those of each alone would cut half of the pictures off.
TOGETHER = 8


def measure_spans(graph: Graph, images: Iterable[np.ndarray]) -> dict[str, Span]:
    """Run pictures through a simplified graph in float32, and see what goes into each product over maps.

    Args:
        graph: for pictures of one size.
        images: float32 (3, H, W), normalised.

    Returns:
        By the names of the values, the mean over groups of :data:`TOGETHER` pictures of their least and greatest.
    """
    assert graph.size is not None
    network = Network(graph, graph.size, How(fused=False))
    found: dict[str, list[Span]] = {}
    for number, image in enumerate(images):
        for name, values in network.inputs_of_products(image):
            groups, span = found.setdefault(name, []), (float(values.min()), float(values.max()))
            if number % TOGETHER == 0:
                groups.append(span)
            else:
                groups[-1] = min(groups[-1][0], span[0]), max(groups[-1][1], span[1])
    return {
        name: (float(np.mean([low for low, _ in groups])), float(np.mean([high for _, high in groups])))
        for name, groups in found.items()
    }


def write_spans(folder: Path, spans: Mapping[str, Span]) -> None:
    """Put them into an exported folder."""
    write_json(folder / FILE, {"spans": {name: list(span) for name, span in spans.items()}})


def read_spans(folder: Path) -> dict[str, Span]:
    """What :func:`write_spans` wrote.

    Raises:
        PredictError: the folder has no such file, or a damaged one.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {str(name): (float(low), float(high)) for name, (low, high) in content["spans"].items()}
    except FileNotFoundError:
        raise PredictError(f"{folder} has no {FILE}; int8 needs: pplc export --precision int8") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PredictError(f"{folder / FILE} is damaged ({error}); run: pplc export --precision int8") from None
