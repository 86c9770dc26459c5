"""A program that forks while its threads predict; run it with an exported folder, an engine and a number of forks.

It prints how many children predicted like their parent, gave other results, and hung.
"""

from __future__ import annotations

import collections
import os
import signal
import sys
import threading
import time

from helpers.images import random_image
from pplc_cli import Predictor

SECONDS = 60  # until a child counts as hung


def main(folder: str, engine: str, forks: int) -> None:
    predictor = Predictor(folder, engine=engine, workers=2)
    images = [random_image(number) for number in range(20)]
    expected = [prediction.score or 0.0 for prediction in predictor.predict(images)]
    stop = threading.Event()

    def predict_for_ever(count: int) -> None:
        while not stop.is_set():
            list(predictor.predict(images[:count]))

    threads = [threading.Thread(target=predict_for_ever, args=(count,)) for count in (3, 20, 3)]
    for thread in threads:
        thread.start()

    def child() -> bool:
        few, many = (list(predictor.predict(images[:count])) for count in (3, 20))
        return all(abs((one.score or 0.0) - score) < 1e-4 for part in (few, many) for one, score in zip(part, expected))

    ends: collections.Counter[str] = collections.Counter()
    for number in range(forks):
        time.sleep(0.01 * (number % 5))
        pid = os.fork()
        if pid == 0:
            good = False
            try:
                good = child()
            finally:
                os._exit(0 if good else 1)
        ends[wait(pid)] += 1
    stop.set()
    for thread in threads:
        thread.join()
    print(ends["right"], ends["wrong"], ends["hung"])


def wait(pid: int) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return "wrong" if status else "right"
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
