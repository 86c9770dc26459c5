"""``pplc bench``: as in :mod:`pplc_cli.cli.main`, only click and the standard library load here."""

from __future__ import annotations

from typing import Optional

import click

_AT_LEAST_ONE = click.IntRange(1)


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--engine", "engines", multiple=True, metavar="NAME", help="Only this one (all that are installed).")
@click.option("--precision", "precisions", multiple=True, metavar="NAME", help="float32, bfloat16 or int8 (float32).")
@click.option("--threads", multiple=True, type=_AT_LEAST_ONE, help="Of the engines (physical cores).")
@click.option("--batch-size", "batches", multiple=True, type=click.IntRange(1, 1024), help="Images at a time (1, 16).")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Turns of each.")
@click.option(
    "--seconds", type=click.FloatRange(0, 600, min_open=True), default=1.0, show_default=True, help="Of each turn."
)
@click.option("--output", metavar="FILE", help="Draw latency and images a second, as a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
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
    """Latency, images a second and start of each engine, in turn, beside what this machine can do at most.

    A MODEL is an exported folder, a run's folder or a network's name (then with random weights); default: the latest
    run. --engine, --precision, --threads and --batch-size may be given several times: everything is measured with
    everything.
    """
    from pplc_cli.base.files import user_path
    from pplc_cli.benchmark import bench as measure
    from pplc_cli.cli.console.progress import counter
    from pplc_cli.cli.console.tables import print_bench

    with counter("measuring") as progress:
        found = measure.bench(
            models,
            engines=engines or measure.ENGINES,
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
        click.echo(f"{output} written", err=as_json)
