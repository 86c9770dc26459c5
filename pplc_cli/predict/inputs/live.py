"""Images that come while the program runs: the frames of a camera, and files that appear in a folder."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, Union

import numpy as np

from pplc_cli.base.errors import ImageError, PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import user_path
from pplc_cli.data.image_files import is_image_name, walk
from pplc_cli.predict.inputs.source import Source

EVERY = 1.0  # seconds between the frames of a camera
POLL = 0.5  # seconds between two looks at a folder; on network drives the system reports no changes
PATIENCE = 5.0  # seconds that a file which cannot be decoded must stay unchanged before it counts as broken


def read_camera(camera: str, every: float = EVERY) -> Iterator[Source]:
    """Yield frames of a camera, for ever; each is the newest one when it is asked for.

    Args:
        camera: its number, from 0, or the address of a stream (rtsp://...), or a video file, which ends.
        every: seconds between frames.

    Raises:
        PredictError: the camera cannot be opened, or it stops.
    """
    import cv2

    device: Union[int, str] = int(camera) if camera.isdecimal() else camera
    with _quiet_opencv(cv2):
        capture = cv2.VideoCapture(device)
        opened = capture.isOpened()
    if not opened:
        raise PredictError(
            tr("camera {camera}: cannot be opened; expected its number, such as 0, or rtsp://...", camera=camera)
        )
    began, due, frames = time.monotonic(), 0.0, 0
    try:
        # A camera keeps some frames; all are taken, so that none that is answered is old.
        while capture.grab():
            frames += 1
            now = time.monotonic() - began
            if now < due:
                continue
            due = now + every
            read, frame = capture.retrieve()
            if read:
                yield Source(f"camera {camera}#t={now:.3f}", pixels=np.ascontiguousarray(frame[..., ::-1]))
    finally:
        capture.release()
    raise PredictError(tr("camera {camera}: stopped after {count} frames", camera=camera, count=frames))


@contextlib.contextmanager
def _quiet_opencv(cv2: Any) -> Iterator[None]:
    """Keep OpenCV from printing lines of its own about a camera that is not there."""
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setLogLevel(level)


def watch_folder(folder: str) -> Iterator[Source]:
    """Yield the image files that appear or change below a folder from now on, for ever, each when it is whole.

    A file is whole when it did not change between two looks and can be decoded. One that cannot is answered with an
    error after ``PATIENCE`` seconds without a change.

    Raises:
        PredictError: the folder does not exist, or is gone.
    """
    path = user_path(folder)
    if not path.is_dir():
        raise PredictError(tr("{folder}: no such folder", folder=folder))
    known = _states(str(path))
    return _changes(str(path), known)


def _changes(folder: str, known: dict[str, tuple[int, int]]) -> Iterator[Source]:
    seen: dict[str, tuple[tuple[int, int], float]] = {}  # states of files that are not answered, and since when
    while True:
        began = time.monotonic()
        if not os.path.isdir(folder):  # noqa: PTH112
            raise PredictError(tr("{folder}: the folder is gone", folder=folder))
        states = _states(folder)
        now = time.monotonic()
        for name in seen.keys() - states.keys():
            del seen[name]
        for name, state in states.items():
            if known.get(name) == state:
                continue
            last = seen.get(name)
            if last is None or last[0] != state:
                seen[name] = state, now
                continue
            source = _whole(name)
            if source.error is not None and now - last[1] < PATIENCE:
                continue
            if _state(name) == state:  # it did not change while it was read
                known[name] = state
                del seen[name]
                yield source
        known = {name: state for name, state in known.items() if name in states}
        # Looking at a folder of a million files takes seconds; this leaves the processor to others.
        time.sleep(max(POLL, 5 * (time.monotonic() - began) if not seen else POLL))


def _whole(name: str) -> Source:
    """The decoded image, or why it cannot be decoded."""
    try:
        return Source(name, pixels=Source(name).decode())
    except ImageError as error:
        return Source(name, error=str(error))


def _states(folder: str) -> dict[str, tuple[int, int]]:
    """Size and time of change of all image files below a folder."""
    found = ((name, _state(name)) for name in walk(folder) if is_image_name(name))
    return {name: state for name, state in found if state is not None}


def _state(name: str) -> Union[tuple[int, int], None]:
    try:
        status = os.stat(name)  # noqa: PTH116
    except OSError:  # removed since
        return None
    return status.st_size, status.st_mtime_ns
