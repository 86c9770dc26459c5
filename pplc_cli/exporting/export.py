"""From a trained run to the folder that every engine loads, checked against the network it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import yaml

from pplc_cli.base.errors import ExportError, one_line
from pplc_cli.base.files import PathLike, atomic_directory, user_path, write_json, write_text
from pplc_cli.base.paddle import load_paddle
from pplc_cli.base.schema import did_you_mean
from pplc_cli.config.sections import Config
from pplc_cli.data.transforms.pipeline import Pipeline
from pplc_cli.exporting.formats import ENGINE_OF, FORMATS, ExportOptions, write_formats
from pplc_cli.exporting.result import ExportResult
from pplc_cli.exporting.verify import _Check, _check_images
from pplc_cli.models.registry import find_network
from pplc_cli.predict.exported_model import SIDECAR
from pplc_cli.predict.inference_yml import at_size, build_inference_yml
from pplc_cli.training.runs.checkpoint import load_network
from pplc_cli.training.runs.run_folder import RunFolder

LOWER_PRECISIONS = ("bfloat16", "int8")
ANY = "any"


def export(
    run: RunFolder,
    config: Config,
    *,
    output: Optional[PathLike] = None,
    formats: Sequence[str] = ("paddle",),
    precisions: Sequence[str] = (),
    batch: Optional[int] = None,
    size: Union[tuple[int, int], str, None] = None,
    simplify: bool = False,
) -> ExportResult:
    """Write the inference model of a run's best weights, and run it beside them on validation images.

    Args:
        run: what to export.
        config: its configuration; ``export`` has the tolerance, the number of images and what accuracy may be lost.
        output: the folder to write; default ``inference_model`` in the run.
        formats: some of paddle, onnx, openvino.
        precisions: ``int8`` writes a file of its own; ``bfloat16`` is what engines make of float32. Either is measured.
        batch: how many images run together, always; None: any number.
        size: height and width instead of the evaluation's; ``any``: the files take every size, the preprocessing
            stays the evaluation's.
        simplify: fold batch norm and factors into the weights.

    Raises:
        ExportError: the preprocessing has no form in PaddleX, an engine disagrees, or a precision costs too much.
        PplcError: a package is not installed. Nothing is written then, as with an ExportError.
    """
    formats = _known(formats, FORMATS, "a format")
    precisions = _known(precisions, LOWER_PRECISIONS, "a precision")
    paddle = load_paddle(config.train.threads)
    network, info = load_network(run.best)
    spec = find_network(info["network"])
    labels = info["labels"]
    transforms = at_size(config.eval.transforms, size) if isinstance(size, tuple) else config.eval.transforms
    pipeline = Pipeline(transforms, training=False)
    form = ExportOptions(None if size == ANY else pipeline.size, batch, simplify)
    images = _check_images(config, labels, pipeline)
    try:
        with paddle.no_grad():
            expected = paddle.nn.functional.softmax(network(paddle.to_tensor(images)), axis=1).numpy()
    except (RuntimeError, ValueError) as error:
        height, width = pipeline.size
        raise ExportError(
            f"{spec.name} does not take images of {height} x {width}: {one_line(error, stack=True)}"
        ) from None
    name = config.export.model_name or spec.paddlex or spec.name
    description = build_inference_yml(name, labels, transforms, pipeline.size, batch)
    folder = user_path(output) if output else run.exported
    if folder.exists() and any(folder.iterdir()) and not (folder / "inference.yml").exists():
        raise ExportError(f"{folder} holds other files; name an empty or new folder")
    done = ExportResult(folder, name, {}, len(images), spec.paddlex is not None or name != spec.name, formats)
    with atomic_directory(folder) as temporary:
        graph = write_formats(network, form, formats, temporary, graph="int8" in precisions)
        write_text(temporary / "inference.yml", yaml.safe_dump(description, allow_unicode=True, sort_keys=False))
        check = _Check(temporary, config, form)
        engines = [check.open(ENGINE_OF[format_name]) for format_name in formats]
        engines += check.open_all("float32", ["pplc"])  # which reads Paddle's format
        for engine in engines:
            done.differences[engine.name] = check.compare(engine, images, expected)
        if precisions:
            done = check.lower(done, graph, precisions, labels, pipeline)
        recorded: dict[str, Any] = {e: {"float32": {"difference": d}} for e, d in done.differences.items()}
        for one in done.accuracies:
            recorded.setdefault(one.engine, {})[one.precision] = {"top1": one.top1, "float32_top1": one.before}
        sidecar = {"network": spec.name, "weights": info["sha256"]["model"], "difference": done.difference}
        facts = {"images": len(images), "batch": batch, "size": form.size, "simplified": simplify, "engines": recorded}
        write_json(temporary / SIDECAR, {**sidecar, **facts, "measured_on": done.measured or None})
    return done


def _known(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise ExportError(f"expected {what} of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}")
    return tuple(dict.fromkeys(names))
