"""Translate between a configuration's transforms and PaddleX's ``inference.yml``."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, Optional

from pplc_cli.base.errors import ExportError
from pplc_cli.base.language.messages import tr
from pplc_cli.data.transforms.basic import CenterCrop, Normalize, Resize, ResizeByShort, Size
from pplc_cli.data.transforms.pipeline import check_transforms, fixed_size
from pplc_cli.kernels.graph.validate import MAX_SIDE

TOP_K = 5
MAX_STEPS = 16  # of preprocessing; PaddleX writes four


def build_inference_yml(
    name: str, labels: Sequence[str], transforms: Sequence[Any], size: Size, batch: Optional[int] = None
) -> dict[str, Any]:
    """Build the content of ``inference.yml``.

    Args:
        name: PaddleX's name of the network.
        labels: class names in the order of their ids.
        transforms: the evaluation transforms.
        size: height and width of their output.
        batch: the fixed batch size; None: variable.

    Raises:
        ExportError: PaddleX's image classification cannot express the transforms.
    """
    operators: list[dict[str, Any]] = []
    for operator in check_transforms(transforms, "eval.transforms", [], training=False):
        if isinstance(operator, ResizeByShort) and operator.max_size < 1 and not operators:
            operators.append({"ResizeImage": {"resize_short": operator.short_size, **_interp(operator.interp)}})
        elif isinstance(operator, Resize) and not operator.keep_ratio and not operators:
            height, width = operator.size()
            operators.append({"ResizeImage": {"size": [width, height], **_interp(operator.interp)}})
        elif isinstance(operator, CenterCrop) and len(operators) == 1:
            operators.append({"CropImage": {"size": operator.crop_size}})
        elif (
            isinstance(operator, Normalize)
            and operators
            and len(set(operator.max_val)) == 1
            and not any(operator.min_val)
        ):
            scale = 1 / operator.max_val[0] if operator.is_scale else 1.0
            mean_std = {"mean": list(operator.mean), "std": list(operator.std)}
            operators.append({"NormalizeImage": {"channel_num": 3, **mean_std, "order": "", "scale": scale}})
        else:
            raise ExportError(
                tr(
                    "eval.transforms: PaddleX does not support {name} here; expected ResizeByShort or "
                    "Resize, then CenterCrop, then Normalize (min_val 0, one max_val)",
                    name=type(operator).__name__,
                )
            )
    operators.append({"ToCHWImage": None})

    def shapes() -> dict[str, Any]:  # minimum, typical and maximum, for TensorRT
        return {"x": [[batch or n, 3, *size] for n in (1, 1, 8)]}

    return {
        "Global": {"model_name": name},
        "Hpi": {
            "backend_configs": {
                "paddle_infer": {"trt_dynamic_shapes": shapes()},
                "tensorrt": {"dynamic_shapes": shapes()},
            }
        },
        "PreProcess": {"transform_ops": operators},
        "PostProcess": {"Topk": {"topk": min(TOP_K, len(labels)), "label_list": list(labels)}},
    }


def _interp(name: str) -> dict[str, str]:
    return {} if name == "LINEAR" else {"interpolation": name}


def at_size(transforms: Sequence[Any], size: Size) -> list[Any]:
    """Adapt transforms to another input size; the network still sees the same part of an image.

    Raises:
        ExportError: a transform cannot be adapted to that size.
    """
    operators = check_transforms(transforms, "eval.transforms", [], training=False)
    before = fixed_size(operators)
    changed: list[Any] = []
    for raw, operator in zip(transforms, operators):
        if isinstance(operator, Resize) and not operator.keep_ratio:
            changed.append({"Resize": {"target_size": list(size), "interp": operator.interp}})
        elif isinstance(operator, ResizeByShort) and operator.max_size < 1 and before and size[0] == size[1]:
            short = round(operator.short_size * size[0] / before[0])
            changed.append({"ResizeByShort": {"short_size": short, "interp": operator.interp}})
        elif isinstance(operator, CenterCrop) and size[0] == size[1]:
            changed.append({"CenterCrop": {"crop_size": size[0]}})
        elif isinstance(operator, Normalize):
            changed.append(raw)
        else:
            raise ExportError(
                tr(
                    "eval.transforms: {name} cannot be adapted to {height} x {width}; expected Resize, or "
                    "ResizeByShort and CenterCrop with a square",
                    name=type(operator).__name__,
                    height=size[0],
                    width=size[1],
                )
            )
    return changed


def read_steps(steps: Any) -> list[Any]:
    """Translate the steps of PaddleX's preprocessing into transforms; ToCHWImage is none, pplc always performs it.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: a step is unknown, or not valid.
    """
    if not isinstance(steps, list) or len(steps) > MAX_STEPS:
        raise ValueError(tr("transform_ops: expected a list of at most {limit} steps", limit=MAX_STEPS))
    return [transform for step in steps for transform in _transforms(step)]


def _transforms(step: dict[str, Any]) -> list[Any]:
    (name, arguments), *_ = step.items()
    arguments = arguments or {}
    if name == "ResizeImage":
        interp = {"interp": arguments.get("interpolation", "LINEAR")}
        if arguments.get("resize_short"):
            return [{"ResizeByShort": {"short_size": _side(arguments["resize_short"]), **interp}}]
        width, height = (arguments["size"],) * 2 if isinstance(arguments["size"], int) else arguments["size"]
        return [{"Resize": {"target_size": [_side(height), _side(width)], **interp}}]
    if name == "CropImage":
        return [{"CenterCrop": {"crop_size": _side(arguments.get("size", 224))}}]
    if name == "NormalizeImage":
        scale, mean, std = arguments.get("scale", 1 / 255), arguments["mean"], arguments["std"]
        if not all(math.isfinite(number) for number in (scale, *mean, *std)) or not scale > 0:
            raise ValueError(tr("NormalizeImage: expected finite numbers, and a positive scale"))
        return [{"Normalize": {"mean": mean, "std": std, "max_val": [1 / scale] * 3}}]
    if name == "ToCHWImage":
        return []
    raise ValueError(tr("unknown step {name}", name=reprlib.repr(name)))


def _side(value: Any) -> int:
    """A side in pixels."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_SIDE:
        raise ValueError(
            tr("expected a side of 1 to {limit} pixels, got {value}", limit=MAX_SIDE, value=reprlib.repr(value))
        )
    return value
