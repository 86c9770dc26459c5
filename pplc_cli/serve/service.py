"""What the routes of one server share."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Optional, TypeVar

from threadpoolctl import threadpool_limits

from pplc_cli.base.processes.signals import python_handlers_kept
from pplc_cli.serve.batching import QueueFull
from pplc_cli.serve.collect import Collection
from pplc_cli.serve.metrics import Metrics
from pplc_cli.serve.models import ModelOptions, Models

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """How the server answers.

    Attributes:
        host: that it listens on.
        token: the bearer token that requests must have; None: none.
        max_bytes: largest body of a request.
        allow_urls: whether addresses in JSON are fetched, from the public internet only.
        collect: the folder for corrected images; None: nothing is kept.
        models: how models are run.
    """

    host: str = "127.0.0.1"
    token: Optional[str] = None
    max_bytes: int = 20_000_000
    allow_urls: bool = False
    collect: Optional[str] = None
    models: ModelOptions = ModelOptions()


class Service:
    """What the routes share.

    Attributes:
        options: of the server.
        models: that answer.
        metrics: of the server.
        collection: of corrected images; None: nothing is kept.
        ready: whether requests are taken.
    """

    MOST_MAPS = 5  # heat maps, the one that is being drawn and those that wait

    def __init__(self, sources: list[str], options: ServeOptions) -> None:
        """Load the models.

        Raises:
            PplcError: one cannot be loaded, or the folder for corrected images cannot be used.
        """
        # Each worker computes its own batch; BLAS with threads of its own would take the cores from the others.
        threadpool_limits(1, "blas")
        self.options = options
        self.metrics = Metrics(lambda: sum(model.waiting() for model in self.models))
        self.collection = Collection(options.collect) if options.collect is not None else None
        self.models = Models(sources, options.models, self.metrics.batch)
        self.ready = True
        self._one = ThreadPoolExecutor(1, thread_name_prefix="pplc-serve-one")  # for what may not run twice at once
        self._maps = 0

    async def reload(self) -> None:
        """Load all models anew; requests go on meanwhile.

        Raises:
            PplcError: one cannot be loaded; the old ones stay.
        """
        await asyncio.get_running_loop().run_in_executor(self._one, self.models.reload)

    async def heat_map(self, draw: Callable[[], Result]) -> Result:
        """Call a function that draws a heat map, one at a time.

        Raises:
            QueueFull: too many wait.
        """
        if self._maps >= self.MOST_MAPS:
            raise QueueFull
        self._maps += 1
        try:
            with python_handlers_kept():  # the first heat map imports Paddle, which takes the signals
                return await asyncio.get_running_loop().run_in_executor(self._one, draw)
        finally:
            self._maps -= 1
