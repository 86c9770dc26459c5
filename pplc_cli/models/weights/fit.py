"""Copy weights into a network, and report missing keys and wrong shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pplc_cli.base.errors import ModelError
from pplc_cli.base.language.messages import tr


def fit_weights(network: Any, weights: dict[str, np.ndarray], where: str, classifier: str = "fc") -> list[str]:
    """Copy weights into a network. Only the classifier may differ, in its number of classes.

    Args:
        network: a layer.
        weights: arrays by the keys of its state dict.
        where: the name of their source in errors.
        classifier: the layer that depends on the number of classes.

    Returns:
        The classifier's keys that were not copied, because the number of classes differs.

    Raises:
        ModelError: keys are missing, unknown or of another shape; the message names them. Nothing is copied then.
    """
    state = network.state_dict()
    faults, replaced = find_faults({key: tuple(tensor.shape) for key, tensor in state.items()}, weights, classifier)
    if faults:
        raise ModelError(tr("{where} does not fit this network: {faults}", where=where, faults=shortened(faults)))
    for key, tensor in state.items():
        if key not in replaced:
            tensor.set_value(np.ascontiguousarray(weights[key], dtype=np.float32))
    return replaced


def find_faults(
    shapes: dict[str, tuple[int, ...]], weights: dict[str, np.ndarray], classifier: str
) -> tuple[list[str], list[str]]:
    """Compare weights with the shapes of a network.

    Args:
        shapes: the network's shapes by key.
        weights: arrays by key.
        classifier: the layer that depends on the number of classes.

    Returns:
        Fault messages, and the classifier's keys that differ only in the number of classes.
    """
    faults = [tr("{key} is missing", key=key) for key in shapes if key not in weights]
    for key in weights.keys() - shapes.keys():
        if key == "last_conv.bias":
            faults.append(tr("{key} is unknown; model.options.last_conv_bias=true adds it", key=key))
        else:
            faults.append(tr("{key} is unknown", key=key))
    replaced = []
    for key in shapes.keys() & weights.keys():
        shape = tuple(weights[key].shape)
        if shape != shapes[key]:
            if key.rpartition(".")[0] == classifier and _other_classes(shape, shapes[key]):
                replaced.append(key)
            else:
                faults.append(
                    tr(
                        "{key} has shape {shape}, expected {expected}",
                        key=key,
                        shape=list(shape),
                        expected=list(shapes[key]),
                    )
                )
    return sorted(faults), sorted(replaced)


def shortened(faults: list[str]) -> str:
    """Join the first eight faults and the number of further ones."""
    listed = "; ".join(faults[:8])
    return tr("{faults} (and {count} more)", faults=listed, count=len(faults) - 8) if len(faults) > 8 else listed


def _other_classes(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ along exactly one axis."""
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other)) == 1
