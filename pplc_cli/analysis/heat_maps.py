"""Heat maps: which parts of an image a trained network's answer rests on.

Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391) weights each feature map by its mean gradient. LayerCAM (Jiang et
al., 2021, https://doi.org/10.1109/TIP.2021.3089943) weights each place of each map by its own gradient, which stays
sharp where the maps are small. Both work on every network whose feature maps are outputs of layers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Optional, Union

import numpy as np

from pplc_cli.base.errors import ModelError, PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import as_tensor, load_paddle
from pplc_cli.base.schema import did_you_mean, expect_type
from pplc_cli.base.storage.files import PathLike, user_path
from pplc_cli.base.text import file_name, unused
from pplc_cli.data.transforms.basic import Normalize
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.current import exported_folder
from pplc_cli.plots.heat import draw_heat_map, is_heat_map
from pplc_cli.predict.confidence import calibrate, read_temperature
from pplc_cli.predict.inputs.source import ImageLike, name_of, pixels_of
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run import Run, open_run
from pplc_cli.training.runs.run_folder import RunFolder

LAYERCAM, GRADCAM = "layercam", "gradcam"
METHODS = (LAYERCAM, GRADCAM)


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """Where a network looks in one image.

    Attributes:
        path: the image's path or other name.
        image: what the network sees of it, uint8 RGB (H, W, 3).
        heat: float32 (H, W), from 0 to 1; all 0 if no part speaks for the class.
        label: the class that is explained.
        score: its probability, calibrated as that of ``pplc predict`` if the run is exported.
        predicted: the class with the highest probability.
    """

    path: str
    image: np.ndarray
    heat: np.ndarray
    label: str
    score: float
    predicted: str


class Explainer:
    """A run's best weights, ready to explain its answers.

    Attributes:
        labels: class names in the order of their ids.
        method: one of :data:`METHODS`.
    """

    def __init__(self, run: Union[Run, RunFolder, PathLike], *, method: str = LAYERCAM) -> None:
        """Load a run.

        Args:
            run: the run, or its folder.
            method: ``layercam`` or ``gradcam``.

        Raises:
            TypeError: an argument has another type.
            PplcError: there is no run or no such method.
        """
        expect_type("method", method, str)
        if method not in METHODS:
            raise PredictError(
                tr("unknown method {method!r}{hint}", method=method, hint=did_you_mean(method, list(METHODS)))
            )
        opened, config = open_run(run, None)
        self._paddle = load_paddle(config.train.threads)
        self._network, info = load_network(opened.best)
        self.labels: list[str] = info["labels"]
        self.method = method
        self._pipeline = Pipeline(info["transforms"], training=False)
        self._temperature = None
        with contextlib.suppress(PredictError):  # not exported, or before the last training
            self._temperature = read_temperature(exported_folder(opened))
        self._normalize = next(each for each in self._pipeline.sample if isinstance(each, Normalize))

    def explain(self, image: ImageLike, *, label: Optional[str] = None) -> HeatMap:
        """Explain the answer for one image.

        Args:
            image: a path, the bytes of an image file, a decoded uint8 array (H, W, 3) or a Pillow image.
            label: the class to explain; None: the predicted one.

        Raises:
            ImageError: the image cannot be used.
            PredictError: there is no such class.
            ModelError: the network has no feature maps.
        """
        self.check_label(label)
        prepared = self._pipeline(pixels_of(image, bgr=False), np.random.default_rng(0))
        scores, heat, explained = self._heat(prepared, None if label is None else self.labels.index(label))
        return HeatMap(
            path=name_of(image),
            image=self._normalize.undo(prepared.transpose(1, 2, 0)),
            heat=heat,
            label=self.labels[explained],
            score=float(self._calibrated(scores[None])[0, explained]),
            predicted=self.labels[int(scores.argmax())],
        )

    def check_label(self, label: Optional[str]) -> None:
        """Raise PredictError if there is no such class; None is always right."""
        expect_type("label", label, str, type(None))
        if label is not None and label not in self.labels:
            raise PredictError(tr("no class {label!r}{hint}", label=label, hint=did_you_mean(label, self.labels)))

    def scores(self, images: np.ndarray) -> np.ndarray:
        """The probabilities of prepared images, float32 (N, 3, H, W): float32 (N, classes)."""
        with self._paddle.no_grad():
            logits = self._network(as_tensor(images))
            probabilities: np.ndarray = self._paddle.nn.functional.softmax(logits, axis=1).numpy()
        return probabilities

    def _calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities if self._temperature is None else calibrate(probabilities, self._temperature)

    def _heat(self, image: np.ndarray, label: Optional[int]) -> tuple[np.ndarray, np.ndarray, int]:
        """Probabilities, float32 (classes,), the map, float32 (H, W), and the class that it explains."""
        import cv2

        paddle = self._paddle
        x = paddle.to_tensor(image[None], stop_gradient=False)
        with _feature_maps(self._network) as maps:
            logits = self._network(x)
        scores = paddle.nn.functional.softmax(logits, axis=1).numpy()[0]
        label = int(scores.argmax()) if label is None else label
        if not maps:
            raise ModelError(tr("this network has no layers with feature maps, so there is nothing to draw"))
        features = maps[-1]
        (gradient,) = paddle.grad(logits[0, label], [features])
        activation, gradient = features.numpy()[0], gradient.numpy()[0]  # (channels, height, width)
        gradient = gradient.mean(axis=(1, 2), keepdims=True) if self.method == GRADCAM else np.maximum(gradient, 0)
        coarse = np.maximum((activation * gradient).sum(axis=0), 0)
        heat = cv2.resize(coarse, image.shape[:0:-1], interpolation=cv2.INTER_CUBIC)
        heat = np.maximum(heat, 0)  # cubic interpolation undershoots
        return scores, heat / max(float(heat.max()), 1e-12), label


class HeatMapFolder:
    """A folder of pictures with heat maps; equal names do not replace each other."""

    def __init__(self, folder: PathLike) -> None:
        """Args: folder: made with the first picture."""
        self._folder = user_path(folder)
        self._taken: set[str] = set()

    def save(self, found: HeatMap) -> Path:
        """Write ``NAME.png``, or ``NAME_2.png`` and so on if this object has written that name already.

        Raises:
            PplcError: the file cannot be written, or exists and is something else.
        """
        name = file_name(PurePath(found.path).stem)
        path = self._folder / f"{unused(name, self._taken)}.png"
        if path.exists() and not is_heat_map(path):
            raise PredictError(
                tr("{path} exists and is no picture of pplc explain; name another folder with --output", path=path)
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        draw_heat_map(path, found.image, found.heat, PurePath(found.path).name, f"{found.label} {found.score:.1%}")
        return path


@contextlib.contextmanager
def _feature_maps(network: Any) -> Iterator[list[Any]]:
    """Collect the outputs of all layers that are feature maps, (1, C, H, W) with more than one place, in order."""
    maps: list[Any] = []

    def keep(layer: Any, inputs: Any, output: Any) -> None:
        if hasattr(output, "shape") and len(output.shape) == 4 and min(output.shape[2:]) > 1:
            maps.append(output)

    hooks = [layer.register_forward_post_hook(keep) for layer in network.sublayers()]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
