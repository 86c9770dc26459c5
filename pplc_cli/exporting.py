"""From a trained run to the folder that PaddleX 3 loads, checked against the network it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import yaml

from .checkpoint import load_info, load_network
from .config import Config
from .data.images import read_image
from .data.lists import Sample, read_part
from .data.operators import CenterCrop, Normalize, Resize, ResizeByShort
from .data.transforms import Pipeline, check_transforms
from .errors import ExportError, ImageError, PplcError
from .files import PathLike, atomic_directory, user_path, write_json, write_text
from .models.registry import find_network
from .run import Run
from .runtime import load_paddle

TOP_K = 5
SIDECAR = "pplc.json"  # what PaddleX has no place for


@dataclasses.dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Attributes:
        folder: inference.json, inference.pdiparams, inference.yml.
        model_name: what to call it in ``paddlex.create_model``.
        difference: the largest difference of a probability between it and the trained network.
        images: how many pictures that was measured on.
        in_paddlex: whether PaddleX has a network of that name; it loads no others, but looks at nothing else.
    """

    folder: Path
    model_name: str
    difference: float
    images: int
    in_paddlex: bool = True


def export(run: Run, config: Config, *, output: Optional[PathLike] = None) -> Exported:
    """Write the inference model of a run's best weights, and run it beside them on validation pictures.

    Args:
        run: what to export.
        config: its configuration; ``export`` has the tolerance and the number of pictures.
        output: the folder to write; default ``inference_model`` in the run.

    Raises:
        ExportError: the preprocessing has no form in PaddleX, or the two disagree; nothing is written then.
    """
    paddle = load_paddle(config.train.threads)
    network, info = load_network(run.best)
    spec = find_network(info["network"])
    pipeline = Pipeline(config.eval.transforms, training=False)
    images = _check_images(config, info["labels"], pipeline)
    with paddle.no_grad():
        expected = paddle.nn.functional.softmax(network(paddle.to_tensor(images)), axis=1).numpy()
    name = config.export.model_name or spec.paddlex or spec.name
    description = describe(name, info["labels"], config.eval.transforms, pipeline.size)
    folder = user_path(output) if output else run.exported
    if folder.exists() and any(folder.iterdir()) and not (folder / "inference.yml").exists():
        raise ExportError(f"{folder} holds other files; name an empty or new folder")
    with atomic_directory(folder) as temporary:
        save_graph(paddle, network, pipeline.size, temporary)
        write_text(temporary / "inference.yml", yaml.safe_dump(description, allow_unicode=True, sort_keys=False))
        difference = _compare(temporary, images, expected, config)
        sidecar = {"network": spec.name, "weights": info["sha256"]["model"], "difference": difference}
        write_json(temporary / SIDECAR, {**sidecar, "images": len(images)})
    return Exported(folder, name, difference, len(images), spec.paddlex is not None or name != spec.name)


def is_current(run: Run) -> bool:
    """Whether the exported folder was made from the run's best weights of now."""
    import json

    try:
        made_from = json.loads((run.exported / SIDECAR).read_text(encoding="utf-8"))["weights"]
    except (OSError, ValueError, KeyError):
        return False
    return made_from == load_info(run.best, "model")["sha256"]["model"]


def describe(name: str, labels: Sequence[str], transforms: Sequence[Any], size: tuple[int, int]) -> dict[str, Any]:
    """What ``inference.yml`` says.

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
                f"eval.transforms: PaddleX has no place for {type(operator).__name__} here; it knows ResizeByShort or "
                "Resize, then CenterCrop, then Normalize (min_val 0, one max_val)"
            )
    operators.append({"ToCHWImage": None})

    def shapes() -> dict[str, Any]:  # least, usual and most, for engines that ask for them
        return {"x": [[n, 3, *size] for n in (1, 1, 8)]}

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


def _check_images(config: Config, labels: Sequence[str], pipeline: Pipeline) -> np.ndarray:
    """Preprocessed validation pictures, spread over the list; noise where the list is not there any more."""
    samples: list[Sample] = []
    for part in ("val", "test", "train"):
        try:
            samples = read_part(config.data, part, labels) or []
        except PplcError:
            continue
        if samples:
            break
    rng = np.random.default_rng(0)
    images = []
    for index in np.linspace(0, len(samples) - 1, min(config.export.images, len(samples))).astype(int):
        try:
            images.append(pipeline(read_image(samples[index].path), rng))
        except ImageError:
            continue  # a picture that is gone does not hinder an export
    if not images:
        noise = rng.integers(0, 256, (16, 300, 300, 3), np.uint8)
        images = [pipeline(image, rng) for image in noise]
    return np.stack(images)


def save_graph(paddle: Any, network: Any, size: tuple[int, int], folder: Path) -> None:
    """The network with softmax as a static graph, input ``x`` (N, 3, H, W)."""

    class WithSoftmax(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Any) -> Any:
            return paddle.nn.functional.softmax(self.network(x), axis=1)

    layer = WithSoftmax()
    layer.eval()
    spec = paddle.static.InputSpec([None, 3, *size], "float32", name="x")
    paddle.jit.save(paddle.jit.to_static(layer, input_spec=[spec], full_graph=True), str(folder / "inference"))
    missing = [n for n in ("inference.json", "inference.pdiparams") if not (folder / n).is_file()]
    if missing:
        raise ExportError(f"Paddle wrote no {' and '.join(missing)} to {folder}; check that it is Paddle 3")


def _compare(folder: Path, images: np.ndarray, expected: np.ndarray, config: Config) -> float:
    """The largest difference of a probability, with the settings that predict will use."""
    from .engines.paddle import PaddleEngine

    engine = PaddleEngine(folder, mkldnn=config.predict.mkldnn, threads=config.predict.threads)
    got = np.concatenate([engine.run(images[i : i + 8]) for i in range(0, len(images), 8)])
    difference = float(np.abs(got.astype(np.float64) - expected).max())
    if not difference <= config.export.tolerance:
        raise ExportError(
            f"the exported model differs from the trained network by {difference:.2g} on {len(images)} pictures, more "
            f"than export.tolerance ({config.export.tolerance:g}); nothing was written"
        )
    return difference
