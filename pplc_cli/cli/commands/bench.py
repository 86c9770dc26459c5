"""``pplc bench``."""

from __future__ import annotations

from typing import Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, echo

_AT_LEAST_ONE = click.IntRange(1)


@click.command(cls=Command)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="NAME",
    help="An engine: paddle, pplc, onnxruntime, openvino or paddlex; may be repeated.  [default: all installed]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="NAME",
    help="float32, bfloat16 or int8; may be repeated.  [default: float32]",
)
@click.option(
    "--threads",
    multiple=True,
    type=_AT_LEAST_ONE,
    help="Threads per engine; may be repeated.  [default: physical cores]",
)
@click.option(
    "--batch-size",
    "batches",
    multiple=True,
    type=click.IntRange(1, 1024),
    help="Images per batch; may be repeated.  [default: 1 and 16]",
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Rounds per combination.")
@click.option(
    "--seconds", type=click.FloatRange(0, 600, min_open=True), default=1.0, show_default=True, help="Seconds per round."
)
@click.option("--output", metavar="FILE", help="Draw latency and images per second to a PNG file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def bench(
    models: tuple[str, ...],
    engines: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: tuple[int, ...],
    batches: tuple[int, ...],
    rounds: int,
    seconds: float,
    output: Optional[str],
    as_json: bool,
) -> None:
    """Measure latency, throughput and start-up time of engines.

    The lower bound on this machine is printed for comparison. A MODEL is an exported folder, a run's folder or a
    network's name (measured with random weights); without one, the latest run. All combinations of --engine,
    --precision, --threads and --batch-size are measured in turn.
    """
    from pplc_cli.base.storage.files import user_path
    from pplc_cli.benchmark import bench as measure
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.console.tables import print_bench
    from pplc_cli.config.sections import ENGINES

    with counter(tr("measuring")) as progress:
        found = measure.bench(
            models,
            engines=engines or ENGINES,
            precisions=precisions or measure.PRECISIONS,
            threads=threads,
            batches=batches or measure.BATCHES,
            rounds=rounds,
            seconds=seconds,
            progress=progress,
        )
    print_bench(found, as_json)
    if output:
        from pplc_cli.benchmark.charts import draw_bench

        draw_bench(user_path(output), found)
        echo(tr("{file} written", file=output), err=as_json)
