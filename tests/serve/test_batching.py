"""The queue of requests: bounded, in batches, each answer to its own request, nothing lost when it is closed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from typing import Any, cast

import numpy as np
import pytest

from pplc_cli.predict.inputs.source import Source
from pplc_cli.predict.prediction import Prediction
from pplc_cli.predict.predictor import Predictor
from pplc_cli.serve.batching import Batcher, QueueClosed, QueueFull


class Echo:
    """Takes batches as :class:`Predictor` does; the label of an image is its name. Waits for ``go``."""

    def __init__(self, workers: int = 2, batch_size: int = 4) -> None:
        self.workers, self.batch_size = workers, batch_size
        self.go = threading.Event()
        self.go.set()
        self.batches: list[int] = []

    def work(self, queue: Any, *, top_k: int) -> None:
        while True:
            tasks: list[Any] = []
            while len(tasks) < self.batch_size:
                task = queue.get(wait=not tasks)
                if task is None:
                    break
                tasks.append(task)
            if not tasks:
                return
            self.go.wait()
            self.batches.append(len(tasks))
            if any(image.name == "poison" for _, image in tasks):
                raise RuntimeError("the engine failed")
            queue.put([(number, Prediction(image.name, [(image.name, 1.0)]), 0) for number, image in tasks])


def batcher(echo: Echo, **options: Any) -> Batcher:
    return Batcher(cast(Predictor, echo), **{"queue": 1000, **options})


def test_every_request_gets_its_own_answer():
    rng = np.random.default_rng()
    echo = Echo(workers=3)
    queue = batcher(echo, queue=10_000)
    futures: dict[str, Any] = {}

    def client(number: int) -> None:
        for request in range(100):
            names = [f"{number} {request} {image}" for image in range(int(rng.integers(1, 4)))]
            futures.update(zip(names, queue.submit([Source(name) for name in names])))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not wait(futures.values(), 30).not_done
    assert len(futures) >= 800 and all(future.result().label == name for name, future in futures.items())
    queue.close()
    assert sum(echo.batches) == len(futures) and max(echo.batches) > 1


def test_a_full_queue_takes_all_or_none():
    echo = Echo(workers=1, batch_size=1)
    echo.go.clear()
    queue = batcher(echo, queue=3)
    first = queue.submit([Source("first")])
    while queue.waiting():
        time.sleep(0.001)
    later = queue.submit([Source("a"), Source("b")])
    with pytest.raises(QueueFull):
        queue.submit([Source("c"), Source("d")])
    assert queue.waiting() == 2
    later += queue.submit([Source("e")])
    echo.go.set()
    assert [future.result(30).label for future in (*first, *later)] == ["first", "a", "b", "e"]
    queue.close()


def test_closing_answers_what_was_accepted():
    echo = Echo(workers=2, batch_size=2)
    echo.go.clear()
    queue = batcher(echo)
    futures = queue.submit([Source(str(number)) for number in range(21)])
    closing = threading.Thread(target=queue.close)
    closing.start()
    while True:
        try:
            futures += queue.submit([Source(str(len(futures)))])  # accepted until it is closed
        except QueueClosed:
            break
    echo.go.set()
    closing.join(30)
    assert not closing.is_alive()
    assert [future.result(0).label for future in futures] == [str(number) for number in range(len(futures))]


def test_a_failing_engine_fails_only_its_batch():
    echo = Echo(workers=1, batch_size=1)
    queue = batcher(echo)
    futures = queue.submit([Source("a"), Source("poison"), Source("b")])
    assert futures[0].result(30).label == "a" and futures[2].result(30).label == "b"
    with pytest.raises(RuntimeError, match="the engine failed"):
        futures[1].result(30)
    queue.close()


def test_a_request_whose_client_has_gone_is_not_predicted():
    echo = Echo(workers=1, batch_size=1)
    echo.go.clear()
    queue = batcher(echo)
    futures = queue.submit([Source(name) for name in "abc"])
    while queue.waiting() > 2:
        time.sleep(0.001)
    assert futures[1].cancel()
    echo.go.set()
    assert futures[2].result(30).label == "c"
    queue.close()
    assert echo.batches == [1, 1]


def test_a_batch_waits_for_more_images():
    echo = Echo(workers=1, batch_size=4)
    queue = batcher(echo, max_delay=60)  # far more than the test takes: only a full batch is run
    futures = queue.submit([Source("a")])
    assert not wait(futures, 0.2).done
    futures += queue.submit([Source(name) for name in "bcd"])
    assert not wait(futures, 30).not_done
    assert echo.batches == [4]
    queue.close()
