"""``pplc predict``: as in :mod:`pplc_cli.cli.main`, only click and the standard library load here."""

from __future__ import annotations

import sys
from typing import Any, Optional

import click

from pplc_cli.cli.options import common, overrides_of, run_option


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@common
@run_option
@click.option("--model", metavar="FOLDER", help="An exported folder, ours or PaddleX's.")
@click.option("--engine", metavar="NAME", help="pplc, paddle, onnxruntime, openvino, paddlex, or auto: the fastest.")
@click.option("--precision", metavar="NAME", help="float32, bfloat16 or int8 (float32).")
@click.option("--threads", type=int, help="Default: physical cores.")
@click.option("--workers", type=int, help="Of many images, so many batches at a time (as many as threads).")
@click.option("--mkldnn/--no-mkldnn", default=None, help="oneDNN kernels of the engine paddle (on).")
@click.option("--batch-size", type=int, help="Images that run together (16).")
@click.option("--top-k", type=int, help="Labels an image (1).")
@click.option("--embeddings", is_flag=True, help="What the classifier reads, 1280 numbers of PP-LCNet, not labels.")
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Of a video, a frame every so many seconds; default: all.",
)
@click.option("--output", metavar="FILE", help="Write to a .jsonl, .csv or .parquet file.")
@click.option("--resume", is_flag=True, help="Go on with the file of a run that was stopped.")
@click.option("--force", is_flag=True, help="Replace the file.")
@click.option("--json", "style", flag_value="json", help="A line of JSON an image.")
@click.option("--csv", "style", flag_value="csv", help="A line of CSV an image.")
@click.option("--save", metavar="FOLDER", help="Save the images with their labels drawn in.")
@click.option("--show", is_flag=True, help="Open them in the system's viewer.")
@click.option("--on", "cluster", metavar="ray", help="Run on Ray Data: ray on this machine, or ray://HOST:PORT.")
def predict(
    inputs: tuple[str, ...],
    config_option: Optional[str],
    dataset: Optional[str],
    overrides: tuple[str, ...],
    run: Optional[str],
    model: Optional[str],
    embeddings: bool,
    every: Optional[float],
    output: Optional[str],
    resume: bool,
    force: bool,
    style: Optional[str],
    save: Optional[str],
    show: bool,
    cluster: Optional[str],
    **flags: Any,
) -> None:
    """Say what is on images: files, folders, globs, lists, tar archives, videos, addresses, or - for standard input.

    The exit status is 1 where an image could not be used; the others are predicted all the same.
    """
    _check(embeddings, output, resume, force, style, save, show, cluster)
    values = overrides_of(overrides, **{f"predict__{name}": value for name, value in flags.items()})
    from pplc_cli.cli.locate import find_predictor

    if cluster is not None:
        from pplc_cli.cli.locate import find_exported
        from pplc_cli.predict.ray import predict_on_ray

        folder, settings = find_exported(model, run, config_option, dataset, values)
        failed = predict_on_ray(cluster, inputs, folder, settings, str(output), embeddings=embeddings, every=every,
                                force=force)  # fmt: skip
        sys.exit(1 if failed else 0)
    if values.get("predict.engine") in ("pplc", "auto"):
        from pplc_cli.predict.engines.pplc import to_be_compiled

        if note := to_be_compiled():
            click.echo(note, err=True)
    predictor, settings = find_predictor(model, run, config_option, dataset, values, features=embeddings)
    if predictor.note:
        click.echo(predictor.note, err=True)
    from pplc_cli.cli.console import predictions
    from pplc_cli.predict.inputs.expand import expand
    from pplc_cli.predict.outputs.layout import OutputSchema

    sources = expand(inputs, every=every)
    layout = OutputSchema.of(predictor, settings.top_k)
    drawer = predictions.Drawer(predictor, save, show)
    if output is None:
        answers = predictor.predict(sources, top_k=layout.top_k, keep_images=drawer.wanted)
        style = style or ("json" if embeddings else "text")
        failed = predictions.print_predictions(answers, predictor, style, layout, drawer)
    else:
        from pplc_cli.predict.inputs.count import count
        from pplc_cli.predict.outputs.resumable import ResumableOutput, peeked

        sources = peeked(sources)  # a word that is wrong must not cost an old file
        recording = ResumableOutput(output, predictor, layout, resume=resume, force=force)
        answers = predictor.predict(
            recording.remaining(sources), top_k=layout.top_k, keep_images=drawer.wanted, many=True
        )
        failed = predictions.record_predictions(answers, recording, predictor, drawer, lambda stop: count(inputs, stop))
    if failed:
        sys.exit(1)


def _check(
    embeddings: bool,
    output: Optional[str],
    resume: bool,
    force: bool,
    style: Optional[str],
    save: Optional[str],
    show: bool,
    cluster: Optional[str],
) -> None:
    """Refuse options that contradict each other."""
    if output is not None and style is not None:
        raise click.UsageError(f"--output chooses the format by its suffix; leave out --{style}")
    if output is None and (resume or force):
        raise click.UsageError("--resume and --force are about the file of --output")
    if resume and force:
        raise click.UsageError("--resume goes on with the file, --force replaces it; give one of them")
    if embeddings and (save or show or style == "csv"):
        raise click.UsageError("--embeddings has no labels to draw, and no place in CSV; leave out the other option")
    if cluster is not None and (output is None or resume or save or show):
        raise click.UsageError("--on needs --output, and knows neither --resume, --save nor --show")
