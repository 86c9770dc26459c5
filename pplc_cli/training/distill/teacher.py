"""Teachers: trained networks, frozen, from a run, an exported folder, an ONNX file, or the zoo."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError, PplcError, PredictError, TrainError
from pplc_cli.base.files import user_path
from pplc_cli.base.schema import did_you_mean
from pplc_cli.data.transforms.basic import Normalize
from pplc_cli.data.transforms.pipeline import Pipeline

Size = tuple[int, int]
_PUBLISHED = [{"ResizeByShort": {"short_size": 256}}, {"CenterCrop": {"crop_size": 224}}]  # of published weights
Run = Callable[[np.ndarray], tuple[np.ndarray, Optional[np.ndarray]]]


class Teacher:
    """A network that says what it sees, and what its classifier reads.

    Attributes:
        name: for people.
        digest: of all that its answers depend on.
        labels: its classes; None where nobody named them.
        classes: how many there are.
        features: numbers that its classifier reads; 0: they cannot be had.
        pipeline: what its own images go through.
        normalize: the end of that.
        size: height and width that its images must have; None: any.
    """

    def __init__(
        self, name: str, digest: str, run: Run, pipeline: Pipeline, labels: Optional[list[str]], size: Optional[Size]
    ) -> None:
        """Args: run: float32 (N, 3, H, W), normalised, to logits or log-probabilities and to features or None.

        Raises:
            TrainError: its pipeline does not end as a student's does.
        """
        last = pipeline.sample[-1]
        if not isinstance(last, Normalize):
            raise TrainError(f"{name}: expected transforms that end with Normalize")
        self.name, self.digest, self.pipeline, self.labels, self.size = name, digest, pipeline, labels, size
        self.normalize, self._run = last, run
        logits, features = run(np.zeros((1, 3, *(size or (64, 64))), np.float32))
        self.classes, self.features = logits.shape[1], 0 if features is None else features.shape[1]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """A decoded image, uint8 RGB (H, W, 3), as :meth:`answers` takes it, normalised as :attr:`normalize` does."""
        return self.pipeline(image, _UNUSED)

    def answers(self, images: np.ndarray, normalize: Normalize) -> tuple[np.ndarray, Optional[np.ndarray]]:
        """Log-probabilities, float32 (N, classes), and features, float32 (N, features) or None.

        Args:
            images: float32 (N, 3, H, W), as a student gets them.
            normalize: what the student's images went through.
        """
        (theirs, more), (mine, add) = normalize.factors(), self.normalize.factors()
        # From the student's numbers to pixels, and to the teacher's.
        factor = (mine / theirs)[:, None, None]
        images = images * factor + (add[:, None, None] - more[:, None, None] * factor)
        if self.size is not None and images.shape[2:] != self.size:
            images = _resized(images, self.size)
        logits, features = self._run(np.ascontiguousarray(images, np.float32))
        logits = logits - logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), features


_UNUSED = np.random.default_rng(0)  # evaluation transforms draw nothing


def _resized(images: np.ndarray, size: Size) -> np.ndarray:
    import cv2

    return np.stack([cv2.resize(one.transpose(1, 2, 0), size[::-1]).transpose(2, 0, 1) for one in images])


def open_teacher(
    source: str, weights: Optional[str] = None, size: Optional[Size] = None, *, threads: Optional[int] = None
) -> Teacher:
    """A teacher by what a person calls it.

    Args:
        source: the folder of a run or of an exported model, an ONNX file that lies beside its inference.yml, or a
            network of the zoo.
        weights: of a network of the zoo: as ``model.pretrained``; None: the best official ones.
        size: height and width of the student's images; None: its own.
        threads: None: physical cores.

    Raises:
        PplcError: it is none of these, or cannot be loaded.
    """
    path = user_path(source)
    if (path / "best_model").is_dir():
        return _of_run(path, size, threads)
    if path.suffix.lower() == ".onnx":
        return _of_onnx(path, threads)
    if (path / "inference.yml").is_file():
        return _of_export(path, threads)
    if path.exists():
        raise TrainError(
            f"{source} is no run, no exported folder (inference.yml), and no ONNX file with its inference.yml beside it"
        )
    return _of_zoo(source, weights, size, threads)


def _of_run(folder: Path, size: Optional[Size], threads: Optional[int]) -> Teacher:
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.training.runs.checkpoint import load_network

    load_paddle(threads)
    best = folder / "best_model"
    network, info = load_network(best)
    pipeline, digest = Pipeline(info["transforms"], training=False), str(info["sha256"]["model"])
    return _of_network(f"{info['network']} of {folder}", digest, network, pipeline, info["labels"], size, threads)


def _of_zoo(name: str, weights: Optional[str], size: Optional[Size], threads: Optional[int]) -> Teacher:
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.models.registry import build_network, find_network, network_names
    from pplc_cli.models.weights.pretrained import load_pretrained

    load_paddle(threads)
    try:
        spec = find_network(name)
    except ModelError:
        nearest = did_you_mean(name, network_names())
        raise TrainError(
            f"{name!r} is no folder of a run or an exported model, no ONNX file, and no network of the zoo"
            f"{nearest if 'mean' in nearest else ' (pplc models lists them)'}"
        ) from None
    classes = 1000
    network = build_network(spec.name, classes)
    source = weights or ("imagenet_ssld" if "imagenet_ssld" in spec.weights else "imagenet")
    where, replaced = load_pretrained(network, spec, source)
    if replaced:
        raise TrainError(f"distill.weights: {where} has other classes than ImageNet's {classes}; name its run instead")
    network.eval()
    mean, std = (list(values) for values in spec.normalization)
    pipeline = Pipeline([*_PUBLISHED, {"Normalize": {"mean": mean, "std": std}}], training=False)
    hasher = hashlib.sha256(spec.name.encode())
    for key, value in sorted(network.state_dict().items()):
        hasher.update(key.encode() + value.numpy().tobytes())
    return _of_network(spec.name, hasher.hexdigest(), network, pipeline, None, size, threads)


def _of_network(
    name: str,
    digest: str,
    network: Any,
    pipeline: Pipeline,
    labels: Optional[list[str]],
    size: Optional[Size],
    threads: Optional[int],
) -> Teacher:
    """Through the kernels of inference where they know the network, else as it is."""
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.models.static import save_graph

    paddle, size = load_paddle(threads), size or pipeline.size
    with tempfile.TemporaryDirectory() as scratch:
        save_graph(paddle, network, size, Path(scratch))
        try:
            return Teacher(name, digest, _graph_run(Path(scratch), threads), pipeline, labels, size)
        except PredictError:
            pass

    def run(images: np.ndarray) -> tuple[np.ndarray, Optional[np.ndarray]]:
        with paddle.no_grad():
            x = paddle.to_tensor(images)
            if not hasattr(network, "named_stages"):
                return network(x).numpy(), None
            features = network.features(x)
            return network.named_stages()[-1][1](features).numpy(), features.numpy()

    return Teacher(name, digest, run, pipeline, labels, None)


def _graph_run(folder: Path, threads: Optional[int]) -> Run:
    """An exported folder through our own kernels.

    Raises:
        PredictError: they do not know it, or cannot run here.
    """
    from pplc_cli.kernels import unsupported
    from pplc_cli.kernels.graph.paddle_reader import UnknownOperation, read_paddle
    from pplc_cli.kernels.graph.simplify import simplify
    from pplc_cli.predict.engines.pplc import PplcEngine

    if unsupported() is not None:
        raise PredictError(str(unsupported()))
    try:
        graph = simplify(read_paddle(folder))
        features = graph.features()
    except (UnknownOperation, ModelError, ValueError) as error:
        raise PredictError(str(error)) from None
    last = next(node for node in reversed(graph.nodes) if node.kind == "linear")
    weight, bias = last.weights["weight"], last.weights.get("bias", np.float32(0))
    engine = PplcEngine(features, threads=threads)

    def run(images: np.ndarray) -> tuple[np.ndarray, Optional[np.ndarray]]:
        seen = engine.run(images)
        return seen @ weight + bias, seen

    return run


def _of_export(folder: Path, threads: Optional[int]) -> Teacher:
    from pplc_cli.predict.engines.choose import open_chosen
    from pplc_cli.predict.exported_model import hash_model, read_exported

    description = read_exported(folder)
    facts = f"{description.name} of {folder}", hash_model(folder)
    try:
        run = _graph_run(folder, threads)
    except PplcError:
        engine, _ = open_chosen(folder, threads=threads)
        run = _probabilities(engine)
    return Teacher(*facts, run, description.pipeline, description.labels, description.pipeline.size)


def _of_onnx(file: Path, threads: Optional[int]) -> Teacher:
    from pplc_cli.base.hardware import physical_cores
    from pplc_cli.predict.engines.onnxruntime import OnnxRuntimeEngine
    from pplc_cli.predict.exported_model import read_exported

    if not file.is_file():
        raise TrainError(f"{file}: no such file")
    description = read_exported(file.parent)
    engine = OnnxRuntimeEngine(file, precision="float32", threads=threads or physical_cores(), where=file)
    digest = hashlib.sha256(file.read_bytes() + (file.parent / "inference.yml").read_bytes()).hexdigest()
    pipeline = description.pipeline
    return Teacher(str(file), digest, _probabilities(engine), pipeline, description.labels, pipeline.size)


def _probabilities(engine: Any) -> Run:
    def run(images: np.ndarray) -> tuple[np.ndarray, Optional[np.ndarray]]:
        return np.log(np.maximum(engine.run(images), 1e-12)), None

    return run
