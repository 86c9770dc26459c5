"""``pplc models``, ``pplc profile``, ``pplc compare`` and ``pplc weights``."""

from __future__ import annotations

import sys
from typing import Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, Group, echo
from pplc_cli.cli.options import RenamedOption


@click.command(cls=Command)
@click.argument("keywords", nargs=-1, metavar="[KEYWORD]...")
@click.option(
    "--max-params", type=float, metavar="MILLIONS", help="Only networks with at most this many million parameters."
)
@click.option(
    "--max-macs", type=float, metavar="MILLIONS", help="Only networks with at most this many million multiply-adds."
)
@click.option(
    "--min-top1",
    type=float,
    metavar="PERCENT",
    help="Only networks with at least this published top-1 accuracy on ImageNet.",
)
@click.option("--cached", is_flag=True, help="Only networks whose ImageNet weights are on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of the table.")
def models(
    keywords: tuple[str, ...],
    max_params: Optional[float],
    max_macs: Optional[float],
    min_top1: Optional[float],
    cached: bool,
    as_json: bool,
) -> None:
    """List the networks.

    With KEYWORDs, only networks whose names contain one of them.
    """
    from pplc_cli.cli.console.tables import print_models
    from pplc_cli.models.catalog import list_networks

    found = list_networks(keywords, max_params=max_params, max_macs=max_macs, min_top1=min_top1, cached=cached)
    print_models(found, as_json)


_IMAGE_SIZE = click.option(
    "--size", type=click.IntRange(8, 4096), default=224, show_default=True, help="Side of the square images, in pixels."
)


@click.command(cls=Command)
@click.argument("target", metavar="NETWORK|RUN|FILE.py[:CLASS]")
@_IMAGE_SIZE
@click.option("--batch-size", type=click.IntRange(1, 1024), default=1, show_default=True, help="Images per batch.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine.  [default: physical cores]")
@click.option("--output", metavar="FILE", help="Draw time and multiply-adds per layer to a PNG file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def profile(
    target: str, size: int, batch_size: int, threads: Optional[int], output: Optional[str], as_json: bool
) -> None:
    """Measure the time of each layer of a network.

    The network is checked against design rules for light networks on CPUs. The argument is a network's name, a run's
    folder, or a Python file with a paddle.nn.Layer; the file is executed.
    """
    from pplc_cli.base.paddle import load_paddle
    from pplc_cli.base.storage.files import user_path

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
        echo(tr("{file} written", file=output), err=as_json)


@click.command(cls=Command)
@click.argument("targets", nargs=-1, required=True, metavar="NETWORK|RUN|FILE.py[:CLASS]...")
@_IMAGE_SIZE
@click.option(
    "--batch-size",
    type=click.IntRange(2, 1024),
    default=16,
    show_default=True,
    help="Images per batch for the throughput; the latency is of one image.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine.  [default: physical cores]")
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Rounds; all networks run once per round.",
)
@click.option("--output", metavar="FILE", help="Plot accuracy against latency to a PNG file.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of the table.")
def compare(
    targets: tuple[str, ...],
    size: int,
    batch_size: int,
    threads: Optional[int],
    rounds: int,
    output: Optional[str],
    as_json: bool,
) -> None:
    """Measure latency and throughput of several networks.

    The networks take turns. An argument is a network's name, a run's folder, or a Python file with a paddle.nn.Layer;
    the file is executed.
    """
    from pplc_cli.base.storage.files import user_path
    from pplc_cli.benchmark.compare import compare as measure
    from pplc_cli.cli.console.tables import print_comparison

    found = measure(targets, size=(size, size), batch=batch_size, threads=threads, rounds=rounds)
    print_comparison(found, batch_size, as_json)
    if output:
        from pplc_cli.benchmark.charts import draw_comparison

        draw_comparison(user_path(output), found)
        echo(tr("{file} written", file=output), err=as_json)


@click.group(cls=Group)
def weights() -> None:
    """List, download, verify and import pretrained weights.

    They are kept in ~/.cache/pplc, or in the folder named by PPLC_CACHE. PPLC_MIRROR names other servers, separated by
    commas, which are tried in turn. With PPLC_OFFLINE=1 pplc downloads no weights.
    """


@weights.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of the table.")
def weights_list(as_json: bool) -> None:
    """List pretrained weights, and whether they are in the cache."""
    from pplc_cli.base.storage.cache_dir import cache_folder
    from pplc_cli.cli.console.weights import print_list
    from pplc_cli.models.weights.inventory import inventory

    print_list(inventory(), cache_folder(), as_json)


@weights.command(name="fetch")
@click.argument("name")
@click.option(
    "--source",
    metavar="WHICH",
    help="imagenet or imagenet_ssld.  [default: imagenet_ssld if it exists for the network]",
)
@click.option("--force", is_flag=True, help="Download again, and accept the new checksum.")
def weights_fetch(name: str, source: Optional[str], force: bool) -> None:
    """Download official weights into the cache.

    NAME is a network's name, as in pplc models.
    """
    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.models.registry import find_network
    from pplc_cli.models.weights.official import best_source, fetch_official
    from pplc_cli.models.weights.packaged import PACKAGED, packaged_file

    spec = find_network(name)
    if spec.name in PACKAGED:
        echo(tr("{path} is complete", path=packaged_file(spec)))
        return
    with TrainProgress() as reporter:
        path = fetch_official(
            spec, source or best_source(spec), force=force, progress=reporter.download, note=reporter.note
        )
    echo(tr("{path} is complete", path=path))


@weights.command(name="verify")
def weights_verify() -> None:
    """Check the files in the cache against their checksums.

    The checksums were recorded at the first use of each file. The exit status is 1 if a file is damaged or missing.
    """
    from pplc_cli.base.storage.cache_dir import cache_folder
    from pplc_cli.cli.console.weights import print_verified
    from pplc_cli.models.weights.inventory import verify

    if print_verified(verify(), cache_folder()):
        sys.exit(1)


@weights.command(name="import")
@click.argument("file")
@click.option(
    "--network",
    "--model",
    "model",
    cls=RenamedOption,
    metavar="NAME",
    help="The network that the weights belong to.  [default: the one that they fit]",
)
@click.option("--output", metavar="FILE", help="The .safetensors file to write.  [default: a file in the cache]")
def weights_import(file: str, model: Optional[str], output: Optional[str]) -> None:
    """Convert weights made elsewhere, for use with --pretrained.

    FILE is a .pdparams, .safetensors, .pth, .pt or .onnx file.
    """
    from pplc_cli.cli.console.weights import print_imported
    from pplc_cli.models.weights.importing import import_weights, write_import

    imported = import_weights(file, model)
    print_imported(imported, write_import(imported, file, output))
