"""``pplc weights`` and its commands."""

from __future__ import annotations

import sys
from typing import Optional

import click

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Group, echo
from pplc_cli.cli.options import RenamedOption


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
