"""The HTTP application: its routes, and how errors and metrics leave it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Optional

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pplc_cli.base.errors import ImageError, PplcError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.version import __version__
from pplc_cli.serve.batching import QueueClosed, QueueFull
from pplc_cli.serve.metrics import Counted
from pplc_cli.serve.models import NoSuchModel
from pplc_cli.serve.routes import own, paddlex
from pplc_cli.serve.routes.bodies import BadRequest
from pplc_cli.serve.security import RETRY, Guard, Refused
from pplc_cli.serve.service import Service

DESCRIPTION = "Classify images. Send an image file as the body of POST /predict, or as multipart/form-data, or as JSON."


class _PlainRoute(Route):
    """Starlette's route, which is named in the metrics as FastAPI's are."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        await super().handle(scope, receive, send)


def create_app(service: Service, log: Callable[[dict[str, Any]], None] = lambda record: None) -> FastAPI:
    """Build the application.

    Args:
        service: its models and options.
        log: called with one record per request: method, path, status, milliseconds, client. No image content.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.ready = False
        await run_in_threadpool(service.models.close)

    app = FastAPIOffline(title="pplc serve", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.service = service
    app.include_router(own.router)
    app.include_router(paddlex.router)
    # FastAPI describes these routes; Starlette's own answer them, in half the time.
    for route in [
        route for route in (*own.router.routes, *paddlex.router.routes) if "POST" in getattr(route, "methods", ())
    ]:
        assert isinstance(route, APIRoute)
        app.router.routes.insert(0, _PlainRoute(route.path, route.endpoint, methods=["POST"]))
    app.mount("/page", StaticFiles(directory=own.PAGE), name="page")
    for kind, answer in _ERRORS.items():
        app.add_exception_handler(kind, answer)
    options = service.options
    app.add_middleware(Guard, host=options.host, token=options.token, max_bytes=options.max_bytes)
    app.add_middleware(Counted, metrics=service.metrics, log=log)
    return app


def _error(status: int, headers: Optional[dict[str, str]] = None) -> Callable[[Request, Exception], Any]:
    """A handler that answers with one line of JSON."""

    async def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": one_line(error)}, status, headers)

    return answer


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": str(error)}, error.status, error.headers())


async def _failed(request: Request, error: Exception) -> Response:
    # The traceback goes to the server's standard error.
    return JSONResponse({"error": tr("the server failed; its log says why")}, 500)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


_ERRORS: dict[Any, Any] = {
    BadRequest: _error(400),
    NoSuchModel: _error(404),
    ImageError: _error(422),
    QueueFull: _error(503, RETRY),
    QueueClosed: _error(503, RETRY),
    ClientDisconnect: _gone,
    Refused: _refused,
    PplcError: _error(409),
    HTTPException: _http,
    Exception: _failed,
}
