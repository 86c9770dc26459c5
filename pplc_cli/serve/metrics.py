"""What ``GET /metrics`` counts, for Prometheus, and the access log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        """
        Args:
            waiting: the number of images in the queues.
        """
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "pplc_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "pplc_request_seconds", "Time to answer, by route.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._batches = Histogram(
            "pplc_batch_images", "Images predicted together.", buckets=_SIZES, registry=self._registry
        )
        self._images = Counter(
            "pplc_images", "Images by model and result.", ["model", "result"], registry=self._registry
        )
        queue = Gauge("pplc_queue_images", "Images that wait.", registry=self._registry)
        queue.set_function(waiting)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, images: int) -> None:
        """Count a batch."""
        self._batches.observe(images)

    def images(self, model: str, *, predicted: int, unreadable: int) -> None:
        """Count the images of a request."""
        for result, count in (("predicted", predicted), ("unreadable", unreadable)):
            if count:
                self._images.labels(model, result).inc(count)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry)


class Counted:
    """ASGI middleware that counts and logs each request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: Callable[[dict[str, Any]], None]) -> None:
        """
        Args:
            app: what answers.
            metrics: count.
            log: called with a record per request: method, path, status, milliseconds, client; no image content.
        """
        self._app, self._metrics, self._log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - began
            # The route, not the address: strangers would make new series of addresses that do not exist.
            self._metrics.request(getattr(scope.get("route"), "path", "other"), status, seconds)
            client = scope.get("client")
            self._log(
                {
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": status,
                    "ms": round(1000 * seconds, 1),
                    "client": client[0] if client else None,
                }
            )
