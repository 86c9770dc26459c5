"""``pplc models``, ``profile`` and ``compare``: only click and the standard library load here."""

from __future__ import annotations

from typing import Optional

import click


@click.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--max-params", type=float, metavar="MILLIONS", help="None with more parameters.")
@click.option("--max-macs", type=float, metavar="MILLIONS", help="None with more multiply-adds.")
@click.option("--min-top1", type=float, metavar="PERCENT", help="None with a lower published accuracy.")
@click.option("--cached", is_flag=True, help="Only those whose weights are in the cache.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def models(
    words: tuple[str, ...],
    max_params: Optional[float],
    max_macs: Optional[float],
    min_top1: Optional[float],
    cached: bool,
    as_json: bool,
) -> None:
    """List the networks; WORDs choose those whose names have one of them."""
    from pplc_cli.cli.console.tables import print_models
    from pplc_cli.models.catalog import list_networks

    found = list_networks(words, max_params=max_params, max_macs=max_macs, min_top1=min_top1, cached=cached)
    print_models(found, as_json)


_IMAGE_SIZE = click.option(
    "--size", type=click.IntRange(8, 4096), default=224, show_default=True, help="Side of the images."
)


@click.command()
@click.argument("target", metavar="NETWORK|RUN|FILE.py[:CLASS]")
@_IMAGE_SIZE
@click.option("--batch-size", type=click.IntRange(1, 1024), default=1, show_default=True, help="Images at a time.")
@click.option("--threads", type=click.IntRange(1), help="Default: physical cores.")
@click.option("--output", metavar="FILE", help="Draw time and multiply-adds by layer, as a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def profile(
    target: str, size: int, batch_size: int, threads: Optional[int], output: Optional[str], as_json: bool
) -> None:
    """What each layer of a network costs on this CPU, and what the design rules say of it."""
    from pplc_cli.base.files import user_path
    from pplc_cli.base.paddle import load_paddle

    load_paddle(threads)
    from pplc_cli.benchmark.design_rules import check
    from pplc_cli.benchmark.profile import profile as measure
    from pplc_cli.benchmark.targets import find_network_target
    from pplc_cli.cli.console.tables import print_profile

    name, network = find_network_target(target)
    found = measure(network, name, size=(size, size), batch=batch_size, threads=threads)
    print_profile(found, check(found), as_json)
    if output:
        from pplc_cli.benchmark.charts import draw_profile

        draw_profile(user_path(output), found)
        click.echo(f"{output} written", err=as_json)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="NETWORK|RUN|FILE.py[:CLASS]...")
@_IMAGE_SIZE
@click.option("--batch-size", type=click.IntRange(2, 1024), default=16, show_default=True, help="For the throughput.")
@click.option("--threads", type=click.IntRange(1), help="Default: physical cores.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Turns of each network.")
@click.option("--output", metavar="FILE", help="Draw accuracy against latency, as a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
def compare(
    targets: tuple[str, ...],
    size: int,
    batch_size: int,
    threads: Optional[int],
    rounds: int,
    output: Optional[str],
    as_json: bool,
) -> None:
    """Latency and throughput of several networks on this machine, measured in turn."""
    from pplc_cli.base.files import user_path
    from pplc_cli.benchmark.compare import compare as measure
    from pplc_cli.cli.console.tables import print_comparison

    found = measure(targets, size=(size, size), batch=batch_size, threads=threads, rounds=rounds)
    print_comparison(found, batch_size, as_json)
    if output:
        from pplc_cli.benchmark.charts import draw_comparison

        draw_comparison(user_path(output), found)
        click.echo(f"{output} written", err=as_json)
