"""``pplc serve``."""

from __future__ import annotations

from typing import Optional

import click
from click.core import ParameterSource

from pplc_cli.base.language.messages import tr
from pplc_cli.cli.command import Command, echo, hint, note


@click.command(cls=Command)
@click.argument("sources", nargs=-1, metavar="[RUN|FOLDER]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0: all networks.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The port; 0: a free one.")
@click.option(
    "--token",
    envvar="PPLC_TOKEN",
    metavar="TEXT",
    help="Ask every request for this bearer token.  [default: the variable PPLC_TOKEN, else none]",
)
@click.option(
    "--collect", metavar="FOLDER", help="Keep the images that are corrected on the page, for data.extra_list."
)
@click.option("--engine", metavar="NAME", help="The engine, see pplc predict.  [default: that of the run]")
@click.option("--precision", metavar="NAME", help="float32, bfloat16 or int8.  [default: that of the run]")
@click.option(
    "--unknown/--no-unknown",
    default=True,
    show_default=True,
    help="Answer unknown where an image is unlike all training images, if the export can tell.",
)
@click.option("--workers", type=click.IntRange(1), help="Batches processed in parallel.  [default: physical cores]")
@click.option("--max-batch", type=click.IntRange(1, 1024), default=16, show_default=True, help="Images per batch.")
@click.option(
    "--max-delay-ms",
    type=click.FloatRange(0, 1000),
    default=0.0,
    show_default=True,
    help="Milliseconds that a batch waits for more images.",
)
@click.option("--queue", type=click.IntRange(1), default=256, show_default=True, help="Images that may wait; then 503.")
@click.option(
    "--max-mb",
    type=click.FloatRange(0.001, 2000),
    default=20.0,
    show_default=True,
    help="Largest body of a request, in MB; then 413.",
)
@click.option("--allow-urls", is_flag=True, help="Fetch images by their addresses, from the public internet only.")
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="One line of JSON per request.")
def serve(
    sources: tuple[str, ...],
    host: str,
    port: int,
    token: Optional[str],
    collect: Optional[str],
    engine: Optional[str],
    precision: Optional[str],
    unknown: bool,
    workers: Optional[int],
    max_batch: int,
    max_delay_ms: float,
    queue: int,
    max_mb: float,
    allow_urls: bool,
    access_log: bool,
) -> None:
    """Serve models over HTTP, with a web page.

    Each model is a run or an exported folder; NAME=FOLDER gives it another name. The page classifies pictures and lets
    people correct the answers; programs use POST /predict, or PaddleX's POST /image-classification. SIGHUP or POST
    /reload loads newly exported models.
    """
    if token == "" and click.get_current_context().get_parameter_source("token") is ParameterSource.COMMANDLINE:
        raise click.UsageError(tr("--token: expected a text"))
    try:
        from pplc_cli.serve.security import LOOPBACK
        from pplc_cli.serve.server import address_of, listen
        from pplc_cli.serve.server import serve as run_server
        from pplc_cli.serve.service import ServeOptions, Service
    except ModuleNotFoundError as error:
        raise click.ClickException(
            tr("pplc serve needs the package {name}; install it with: pip install 'pplc[serve]'", name=error.name)
        ) from None
    from pplc_cli.serve.models import ModelOptions

    models = ModelOptions(engine, precision, unknown, max_batch, max_delay_ms / 1000, queue, workers)
    options = ServeOptions(host, token or None, int(max_mb * 1e6), allow_urls, collect, models)
    with listen(host, port) as listening:
        if engine in ("pplc", "auto"):
            from pplc_cli.predict.engines.pplc import compilation_note

            note(compilation_note())
        service = Service(list(sources), options)
        for text in sorted({model.note for model in service.models if model.note}):
            note(text)
        if host not in LOOPBACK and not token:
            note(tr("anyone who reaches this computer can use the service; --token TEXT asks for a token"))

        def started() -> None:
            names = ", ".join(model.name for model in service.models)
            echo(tr("serving {models} at {address}", models=names, address=address_of(listening)))
            hint(tr("Ctrl-C stops the server"))

        run_server(service, listening, access_log=access_log, started=started)
