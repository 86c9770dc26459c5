"""Frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

import numpy as np

from pplc_cli.base.errors import PredictError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.predict.inputs.source import Source


def read_video(path: str, every: Optional[float]) -> Iterator[Source]:
    """Yield the frames of a video, rotated as a player shows them, named ``path#t=SECONDS``.

    A damaged video yields one source with an error, after the frames before the damage.

    Args:
        path: the file.
        every: seconds between frames; None: all frames.

    Raises:
        PredictError: the package av is not installed.
    """
    try:
        import av
    except ImportError:
        raise PredictError(tr("{path}: videos need the package av: pip install 'pplc[video]'", path=path)) from None
    seconds, due, empty = 0.0, 0.0, True
    try:
        with av.open(path) as container:
            if not container.streams.video:
                yield Source(path, error=tr("the file holds no video"))
                return
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            step = 1 / float(stream.average_rate or 25)
            for frame in container.decode(stream):
                seconds = frame.time if frame.time is not None else seconds + (0 if empty else step)
                empty = False
                if every is not None:
                    if seconds < due - step / 2:  # take the frame nearest to each time
                        continue
                    due = every * (int(seconds / every + 0.5) + 1)
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield Source(f"{path}#t={seconds:.3f}", pixels=np.ascontiguousarray(np.rot90(pixels, turns)))
    except FileNotFoundError:
        yield Source(path, error=tr("no such file"))
    except Exception as error:  # FFmpeg and PyAV raise many classes
        reason = one_line(error)
        if empty:
            fault = tr("is damaged or not a video: {reason}", reason=reason)
        else:
            fault = tr(
                "is damaged after {seconds:.3f} s, the rest of it is missing: {reason}", seconds=seconds, reason=reason
            )
        yield Source(path, error=fault)
    else:
        if empty:
            yield Source(path, error=tr("the video has no frames"))
