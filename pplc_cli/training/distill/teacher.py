"""Teachers: trained networks from a run, an exported folder, an ONNX file, or the list of ``pplc models``."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from pplc_cli.base.errors import ModelError, PplcError, PredictError, TrainError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.schema import did_you_mean
from pplc_cli.base.storage.files import user_path
from pplc_cli.data.transforms.basic import Normalize, Size
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.models.registry import NetworkSpec

Outputs = tuple[np.ndarray, Optional[np.ndarray]]  # logits or log-probabilities, and features
JOIN = " + "  # between several teachers
# The evaluation transforms of published weights.
_PUBLISHED = [{"ResizeByShort": {"short_size": 256}}, {"CenterCrop": {"crop_size": 224}}]
_CLASSES = 1000


class Teacher:
    """A trained network that predicts labels, and perhaps features, for a student.

    Attributes:
        name: for messages.
        digest: a hash of everything that its predictions depend on.
        labels: class names; None if they are unknown.
        classes: number of classes.
        features: size of the embedding before its classifier; 0: not available.
        pipeline: its evaluation transforms.
        normalize: the last transform of the pipeline.
        size: height and width that its images must have; None: any.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        run: Callable[[np.ndarray], Outputs],
        pipeline: Pipeline,
        labels: Optional[list[str]],
        size: Optional[Size],
    ) -> None:
        """
        Args:
            name, digest, pipeline, labels, size: see the attributes.
            run: takes normalised images, float32 (N, 3, H, W).

        Raises:
            TrainError: the pipeline does not end with Normalize.
        """
        last = pipeline.sample[-1]
        if not isinstance(last, Normalize):
            raise TrainError(tr("{name}: expected transforms that end with Normalize", name=name))
        self.name, self.digest, self.pipeline, self.labels, self.size = name, digest, pipeline, labels, size
        self.normalize, self._run = last, run
        logits, features = run(np.zeros((1, 3, *(size or (64, 64))), np.float32))
        self.classes, self.features = logits.shape[1], 0 if features is None else features.shape[1]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Preprocess a decoded image, uint8 RGB (H, W, 3), for :meth:`predict`."""
        return self.pipeline(image, _UNUSED)

    def predict(self, images: np.ndarray, normalize: Normalize) -> Outputs:
        """Return log-probabilities, float32 (N, classes), and features, float32 (N, features) or None.

        Args:
            images: the student's input, float32 (N, 3, H, W).
            normalize: the student's normalisation.
        """
        (student_factor, student_offset), (own_factor, own_offset) = normalize.factors(), self.normalize.factors()
        # Undo the student's normalisation and apply the teacher's, in one step.
        factor = (own_factor / student_factor)[:, None, None]
        images = images * factor + (own_offset[:, None, None] - student_offset[:, None, None] * factor)
        if self.size is not None and images.shape[2:] != self.size:
            images = _resized(images, self.size)
        logits, features = self._run(np.ascontiguousarray(images, np.float32))
        logits = logits - logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), features


_UNUSED = np.random.default_rng(0)  # evaluation transforms are not random


def _resized(images: np.ndarray, size: Size) -> np.ndarray:
    import cv2

    return np.stack([cv2.resize(one.transpose(1, 2, 0), size[::-1]).transpose(2, 0, 1) for one in images])


def open_teacher(
    source: str, weights: Optional[str] = None, size: Optional[Size] = None, *, threads: Optional[int] = None
) -> Teacher:
    """Load a teacher.

    Args:
        source: the folder of a run or of an exported model, an ONNX file beside its inference.yml, or the name of a
            network; several, joined by " + ", predict the mean of their probabilities, and their features side by side.
        weights: for the name of a network, values as for ``model.pretrained``; None: the best official weights.
        size: height and width of the student's images; None: the teacher's own.
        threads: None: physical cores.

    Raises:
        PplcError: the source is none of these, or cannot be loaded.
    """
    path = user_path(source)
    if JOIN in source and not path.exists():
        return _together([open_teacher(each.strip(), weights, size, threads=threads) for each in source.split(JOIN)])
    if (path / "best_model").is_dir():
        return _of_run(path, size, threads)
    if path.suffix.lower() == ".onnx":
        return _of_onnx(path, threads)
    if (path / "inference.yml").is_file():
        return _of_export(path, threads)
    if path.exists():
        raise TrainError(
            tr(
                "{source}: expected a run (best_model/), an exported folder (inference.yml) or an ONNX "
                "file beside its inference.yml",
                source=source,
            )
        )
    return _of_name(source, weights, size, threads)


def _together(teachers: Sequence[Teacher]) -> Teacher:
    """Combine teachers of the same classes.

    Raises:
        TrainError: they have other classes than the first one.
    """
    first = teachers[0]
    for other in teachers[1:]:
        if (other.classes, other.labels) != (first.classes, first.labels):
            raise TrainError(
                tr(
                    "distill.teacher: {name} and {other} have other classes; teachers can work together if they have "
                    "the same",
                    name=first.name,
                    other=other.name,
                )
            )

    def run(images: np.ndarray) -> Outputs:
        outputs = [teacher.predict(images, first.normalize) for teacher in teachers]
        probabilities = np.mean([np.exp(predicted) for predicted, _ in outputs], axis=0)
        features = [embedding for _, embedding in outputs if embedding is not None]
        joined = np.concatenate(features, axis=1) if len(features) == len(outputs) else None
        return np.log(np.maximum(probabilities, 1e-12)), joined

    digest = hashlib.sha256(" ".join(teacher.digest for teacher in teachers).encode()).hexdigest()
    name = JOIN.join(teacher.name for teacher in teachers)
    return Teacher(name, digest, run, first.pipeline, first.labels, first.size)


def _of_run(folder: Path, size: Optional[Size], threads: Optional[int]) -> Teacher:
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.training.runs.checkpoint import load_network

    load_paddle(threads)
    best = folder / "best_model"
    network, info = load_network(best)
    pipeline, digest = Pipeline(info["transforms"], training=False), str(info["sha256"]["model"])
    return _of_network(
        tr("{network} of {folder}", network=info["network"], folder=folder),
        digest,
        network,
        pipeline,
        info["labels"],
        size,
        threads,
    )


def build_published(spec: NetworkSpec, source: str) -> tuple[Any, Pipeline, str, list[str]]:
    """Build a network of ImageNet's classes with pretrained weights, in evaluation mode; Paddle must be loaded.

    Args:
        spec: the network's spec.
        source: see :func:`pplc_cli.models.weights.pretrained.load_pretrained`.

    Returns:
        The network, its evaluation transforms, the origin of the weights, and the keys left random.

    Raises:
        PplcError: the weights cannot be loaded.
    """
    from pplc_cli.models.registry import build_network
    from pplc_cli.models.weights.pretrained import load_pretrained

    network = build_network(spec.name, _CLASSES)
    where, replaced = load_pretrained(network, spec, source)
    network.eval()
    mean, std = (list(values) for values in spec.normalization)
    pipeline = Pipeline([*_PUBLISHED, {"Normalize": {"mean": mean, "std": std}}], training=False)
    return network, pipeline, where, replaced


def _of_name(name: str, weights: Optional[str], size: Optional[Size], threads: Optional[int]) -> Teacher:
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.models.registry import find_network, network_names

    load_paddle(threads)
    try:
        spec = find_network(name)
    except ModelError:
        raise TrainError(
            tr(
                "{name!r}: expected the folder of a run or of an exported model, an ONNX file, or the "
                "name of a network{hint}",
                name=name,
                hint=did_you_mean(name, network_names(), tr("pplc models lists them")),
            )
        ) from None
    source = weights or ("imagenet_ssld" if "imagenet_ssld" in spec.weights else "imagenet")
    network, pipeline, where, replaced = build_published(spec, source)
    if replaced:
        raise TrainError(
            tr(
                "distill.weights: expected ImageNet's {classes} classes, {where} has others; name its "
                "run as the teacher",
                classes=_CLASSES,
                where=where,
            )
        )
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
    """Make a teacher that runs through the inference kernels if they support the network, else through Paddle."""
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.models.static import save_graph

    paddle, size = load_paddle(threads), size or pipeline.size
    with tempfile.TemporaryDirectory() as scratch:
        save_graph(paddle, network, size, Path(scratch))
        try:
            return Teacher(name, digest, _graph_run(Path(scratch), threads), pipeline, labels, size)
        except PredictError:
            pass

    def run(images: np.ndarray) -> Outputs:
        with paddle.no_grad():
            x = paddle.to_tensor(images)
            if not hasattr(network, "named_stages"):
                return network(x).numpy(), None
            features = network.features(x)
            return network.named_stages()[-1][1](features).numpy(), features.numpy()

    return Teacher(name, digest, run, pipeline, labels, None)


def _graph_run(folder: Path, threads: Optional[int]) -> Callable[[np.ndarray], Outputs]:
    """Run an exported folder through pplc's own kernels.

    Raises:
        PredictError: they do not support the network or this CPU.
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
    last = graph.classifier
    assert last is not None  # features() has found it
    weight, bias = last.weights["weight"], last.weights.get("bias", np.float32(0))
    engine = PplcEngine(features, threads=threads)

    def run(images: np.ndarray) -> Outputs:
        embedding = engine.run(images)
        return embedding @ weight + bias, embedding

    return run


def _of_export(folder: Path, threads: Optional[int]) -> Teacher:
    from pplc_cli.predict.engines.choose import open_chosen
    from pplc_cli.predict.exported_model import hash_model, read_exported

    exported = read_exported(folder)
    name, digest = tr("{network} of {folder}", network=exported.name, folder=folder), hash_model(folder)
    try:
        run = _graph_run(folder, threads)
    except PplcError:
        engine, _ = open_chosen(folder, threads=threads)
        run = _log_probabilities(engine)
    return Teacher(name, digest, run, exported.pipeline, exported.labels, exported.pipeline.size)


def _of_onnx(file: Path, threads: Optional[int]) -> Teacher:
    from pplc_cli.base.hardware import physical_cores
    from pplc_cli.predict.engines.onnxruntime import OnnxRuntimeEngine
    from pplc_cli.predict.exported_model import read_exported

    if not file.is_file():
        raise TrainError(tr("{file}: no such file", file=file))
    exported = read_exported(file.parent)
    engine = OnnxRuntimeEngine(file, precision="float32", threads=threads or physical_cores(), where=file)
    digest = hashlib.sha256(file.read_bytes() + (file.parent / "inference.yml").read_bytes()).hexdigest()
    pipeline = exported.pipeline
    return Teacher(str(file), digest, _log_probabilities(engine), pipeline, exported.labels, pipeline.size)


def _log_probabilities(engine: Any) -> Callable[[np.ndarray], Outputs]:
    def run(images: np.ndarray) -> Outputs:
        return np.log(np.maximum(engine.run(images), 1e-12)), None

    return run
