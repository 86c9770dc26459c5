"""``pplc weights``: as in :mod:`pplc_cli.cli.main`, only click and the standard library load here."""

from __future__ import annotations

import sys
from typing import Optional

import click


@click.group()
def weights() -> None:
    """Look after the weights that training starts from: list, fetch, verify, import.

    They lie in ~/.cache/pplc, or the folder that PPLC_CACHE names. PPLC_MIRROR names other servers, tried in turn;
    with PPLC_OFFLINE=1 none is asked.
    """


@weights.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def weights_list(as_json: bool) -> None:
    """Say which weights there are, and which of them are in the cache."""
    from pplc_cli.base.cache_dir import cache_folder
    from pplc_cli.cli.console.weights import print_list
    from pplc_cli.models.weights.inventory import inventory

    print_list(inventory(), cache_folder(), as_json)


@weights.command(name="fetch")
@click.argument("name")
@click.option("--source", metavar="WHICH", help="imagenet or imagenet_ssld; default: imagenet_ssld where there is one.")
@click.option("--force", is_flag=True, help="Fetch anew, and trust what comes.")
def weights_fetch(name: str, source: Optional[str], force: bool) -> None:
    """Put the official weights of the network NAME into the cache."""
    from pplc_cli.cli.console.progress import TrainProgress
    from pplc_cli.models.registry import find_network
    from pplc_cli.models.weights.official import best_source, fetch_official

    spec = find_network(name)
    with TrainProgress() as reporter:
        path = fetch_official(
            spec, source or best_source(spec), force=force, progress=reporter.download, note=reporter.note
        )
    click.echo(f"{path} is there and whole")


@weights.command(name="verify")
def weights_verify() -> None:
    """Compare every file in the cache with what it was at its first use; the exit status is 1 where one differs."""
    from pplc_cli.base.cache_dir import cache_folder
    from pplc_cli.cli.console.weights import print_verified
    from pplc_cli.models.weights.inventory import verify

    if print_verified(verify(), cache_folder()):
        sys.exit(1)


@weights.command(name="import")
@click.argument("file")
@click.option("--model", metavar="NETWORK", help="The network that they are for; default: the one that they fit.")
@click.option("--output", metavar="FILE", help="The .safetensors file to write; default: in the cache.")
def weights_import(file: str, model: Optional[str], output: Optional[str]) -> None:
    """Convert the weights in FILE (.pdparams, .safetensors, .onnx) to our names."""
    from pplc_cli.cli.console.weights import print_imported
    from pplc_cli.models.weights.importing import import_weights, write_import

    imported = import_weights(file, model)
    print_imported(imported, write_import(imported, file, output))
