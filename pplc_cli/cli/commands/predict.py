"""``pplc predict``."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, note
from pplc_cli.cli.options import RenamedOption, config_options, overrides_of, run_option

if TYPE_CHECKING:
    from pplc_cli.predict.inputs.expand import Skipped


@click.command(cls=Command)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@config_options
@run_option
@click.option(
    "--exported",
    "--model",
    "model",
    cls=RenamedOption,
    metavar="FOLDER",
    help="An exported folder, made by pplc or PaddleX 3.  [default: that of --run]",
)
@click.option(
    "--engine",
    metavar="NAME",
    help="paddle, pplc, onnxruntime, openvino or paddlex; auto: the fastest, measured once.  [default: pplc if the "
    "export was checked with it and its kernels are compiled, else paddle]",
)
@click.option("--precision", metavar="NAME", help="float32, bfloat16 or int8.  [default: float32]")
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine.  [default: physical cores]")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Batches processed in parallel, for more images than one batch.  [default: --threads]",
)
@click.option("--mkldnn/--no-mkldnn", default=None, help="Use oneDNN with the engine paddle.  [default: mkldnn]")
@click.option("--batch-size", type=click.IntRange(1), help="Images per batch.  [default: 16]")
@click.option(
    "--top-k", type=click.IntRange(1), help="Number of labels per image, the most probable first.  [default: 1]"
)
@click.option(
    "--calibrated/--no-calibrated",
    default=None,
    help="Scores say how often the answer is right, by the temperature that pplc export fitted; or the network's "
    "softmax.  [default: calibrated]",
)
@click.option(
    "--unknown", is_flag=True, default=None, help="Answer unknown where an image is unlike all training images."
)
@click.option(
    "--set",
    "--coverage",
    "coverage",
    cls=RenamedOption,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Also give the set of labels that holds the right one in at least this share of images, such as 0.9.",
)
@click.option(
    "--embeddings",
    is_flag=True,
    help="Output embeddings, the features of the penultimate layer (1280 for PP-LCNet), instead of labels.",
)
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Classify one frame of a video or camera every so many seconds.  [default: every frame; a camera: 1]",
)
@click.option("--camera", metavar="NUMBER", help="Classify what a camera sees, until Ctrl-C: 0, or rtsp://...")
@click.option("--watch", metavar="FOLDER", help="Classify the files that come into a folder, until Ctrl-C.")
@click.option("--output", metavar="FILE", help="Write the predictions to a .jsonl, .csv or .parquet file.")
@click.option("--resume", is_flag=True, help="Continue the file of --output after its last complete prediction.")
@click.option("--force", is_flag=True, help="Replace an existing file of --output.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per image.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV per image.")
@click.option("--time", "timed", is_flag=True, help="Print the time taken for a single image, too.")
@click.option("--save", metavar="FOLDER", help="Save copies of the images with their labels drawn on them.")
@click.option("--show", is_flag=True, help="Open the images with their labels in the system's image viewer.")
@click.option("--sort-into", metavar="FOLDER", help="Copy the image files into one subfolder of FOLDER per class.")
@click.option("--link", is_flag=True, help="With --sort-into: make links instead of copies.")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    metavar="SCORE",
    help="With --sort-into: images with a lower score go to the subfolder unsure.",
)
@click.option("--on", "cluster", metavar="ray", help="Run on Ray Data: ray for this machine, or ray://HOST:PORT.")
def predict(
    inputs: tuple[str, ...],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    model: Optional[str],
    embeddings: bool,
    every: Optional[float],
    camera: Optional[str],
    watch: Optional[str],
    output: Optional[str],
    resume: bool,
    force: bool,
    as_json: bool,
    as_csv: bool,
    timed: bool,
    save: Optional[str],
    show: bool,
    sort_into: Optional[str],
    link: bool,
    min_score: Optional[float],
    cluster: Optional[str],
    **flags: Any,
) -> None:
    """Classify images.

    An INPUT is a file, a folder, a glob, a list, a tar archive, a video, a URL, or - for standard input. Instead of it,
    --camera or --watch classifies what comes. The exit status is 1 if an image could not be used; the others are still
    classified.
    """
    _check(click.get_current_context().params)
    values = overrides_of(overrides, **{f"predict__{name}": value for name, value in flags.items()})
    from pplc_cli.cli.locate import find_exported, find_predictor
    from pplc_cli.predict.inputs.expand import Skipped, expand

    skipped = Skipped()
    if cluster is not None:
        from pplc_cli.predict.ray import predict_on_ray

        folder, settings = find_exported(model, run, config_option, dataset, values)
        failed = predict_on_ray(cluster, inputs, folder, settings, str(output), embeddings=embeddings, every=every,
                                force=force, skipped=skipped)  # fmt: skip
        _end(skipped, failed)
        return
    if values.get("predict.engine") in ("pplc", "auto"):
        from pplc_cli.predict.engines.pplc import compilation_note

        note(compilation_note())
    predictor, settings = find_predictor(model, run, config_option, dataset, values, features=embeddings)
    note(predictor.note)
    from pplc_cli.cli.console import predictions
    from pplc_cli.predict.outputs.base import OutputSchema

    sources, sorter = expand(inputs, every=every, skipped=skipped), None
    live = camera is not None or watch is not None
    if live:
        from pplc_cli.predict.inputs.live import EVERY, read_camera, watch_folder

        sources = read_camera(camera, every or EVERY) if camera is not None else watch_folder(str(watch))
    if sort_into is not None:
        from pplc_cli.predict.outputs.sorted_folder import SortedFolder

        sorter = SortedFolder(sort_into, predictor.labels, link=link, min_score=min_score)
        sorter.check(inputs)
        sources = sorter.outside(sources)
    schema = OutputSchema.of(predictor, settings.top_k)
    keeper = predictions.Keeper(predictor, inputs, save, show, sorter)
    style = "json" if as_json or embeddings else "csv" if as_csv else "text"
    if live:
        failed = predictions.print_live(sources, predictor, style, schema, keeper)
    elif output is None:
        results = predictor.predict(sources, top_k=schema.top_k, keep_images=keeper.draws)
        failed = predictions.print_predictions(results, predictor, style, schema, keeper, timed=timed)
    else:
        from pplc_cli.predict.inputs.count import count
        from pplc_cli.predict.outputs.resumable import ResumableOutput, peeked

        sources = peeked(sources)  # fails on a wrong INPUT before an existing file is replaced
        recording = ResumableOutput(output, predictor, schema, resume=resume, force=force)
        note(recording.note)
        results = predictor.predict(
            recording.remaining(sources), top_k=schema.top_k, keep_images=keeper.draws, many=True
        )
        total = functools.partial(count, inputs)
        failed = predictions.record_predictions(results, recording, predictor, keeper, total)
    _end(skipped, failed + keeper.undrawn)


def _end(skipped: Skipped, failed: int) -> None:
    """Say what was not predicted, and set the exit status.

    Args:
        skipped: files of other formats.
        failed: images that could not be used or drawn.
    """
    if skipped.suffixes:
        note(tr("skipped: {files} (not image formats that pplc reads)", files=skipped))
    if failed:
        sys.exit(1)


def _check(given: dict[str, Any]) -> None:
    """Raise for options that contradict each other.

    Args:
        given: the parameters of :func:`predict`.
    """
    to_file, draws = given["output"] is not None, given["save"] or given["show"]
    live = [option for option in ("camera", "watch") if given[option] is not None]
    if len(given["inputs"] or ()) + len(live) == 0:
        raise click.UsageError(tr("expected an INPUT, --camera or --watch"))
    if live and (given["inputs"] or len(live) > 1):
        raise click.UsageError(tr("--camera, --watch and INPUT exclude each other; give one of them"))
    if live and (to_file or given["cluster"] is not None):
        raise click.UsageError(tr("--{option} cannot be combined with --output or --on; use --json", option=live[0]))
    if given["as_json"] and given["as_csv"]:
        raise click.UsageError(tr("--json and --csv exclude each other; give one of them"))
    if to_file and (given["as_json"] or given["as_csv"]):
        raise click.UsageError(tr("--output chooses the format by its suffix; leave out --json and --csv"))
    if given["sort_into"] is None and (given["link"] or given["min_score"] is not None):
        raise click.UsageError(tr("--link and --min-score need --sort-into"))
    if given["sort_into"] is not None and (given["embeddings"] or given["resume"] or given["cluster"] is not None):
        raise click.UsageError(tr("--sort-into cannot be combined with --embeddings, --resume or --on"))
    if not to_file and (given["resume"] or given["force"]):
        raise click.UsageError(tr("--resume and --force need --output"))
    if given["resume"] and given["force"]:
        raise click.UsageError(tr("--resume continues the file, --force replaces it; give one of them"))
    if given["embeddings"] and (given["unknown"] or given["coverage"] is not None):
        raise click.UsageError(tr("--embeddings cannot be combined with --unknown or --set"))
    if given["embeddings"] and (draws or given["as_csv"]):
        raise click.UsageError(tr("--embeddings cannot be combined with --save, --show or --csv"))
    if given["cluster"] is not None and (not to_file or given["resume"] or draws):
        raise click.UsageError(tr("--on needs --output, and cannot be combined with --resume, --save or --show"))
