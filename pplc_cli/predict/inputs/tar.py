"""Pictures inside other files, one after the other: tar archives, and the frames of videos."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, Optional

from pplc_cli.base.errors import PredictError
from pplc_cli.data.decode import IGNORED_FILES, MAX_BYTES, is_image_name
from pplc_cli.predict.inputs.expand import Source


def read_tar(path: str) -> Iterator[Source]:
    """The pictures of an archive, also of a compressed one, named ``path/member``; nothing is written to the disk.

    Damage gives one source that says so, after what came before it; so does an archive without pictures.
    """
    empty = True
    try:
        with tarfile.open(path, "r:*", tarinfo=_Member) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # kept by default, a kilobyte each
                name = f"{path}/{member.name}"
                base = member.name.rpartition("/")[2]
                if member.isdir() or not is_image_name(base) or base.startswith(".") or base.lower() in IGNORED_FILES:
                    continue
                empty = False
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    yield Source(name, error="is a link or a device in the archive, expected a picture")
                elif member.size > MAX_BYTES:
                    yield Source(name, error=f"is {member.size >> 30} GB large, expected at most {MAX_BYTES >> 30}")
                else:
                    yield Source(name, content.read())
            while archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass  # a compressed file's checksum stands at its end
    except FileNotFoundError:
        yield Source(path, error="no such file")
    except Exception as error:  # of six modules: tarfile, gzip, bz2, lzma, zlib, io
        yield Source(path, error=f"is a damaged tar archive, the rest of it is missing: {_told(error)}")
    else:
        if empty:
            yield Source(path, error="the archive holds no pictures")


class _Member(tarfile.TarInfo):
    """tarfile takes a damaged header, and the end of the file, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # two blocks of zeros: the end
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it is cut off") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def read_video(path: str, every: Optional[float]) -> Iterator[Source]:
    """The frames of a video, turned as a player shows them, named ``path#t=SECONDS``.

    Damage gives one source that says so, after the frames before it.

    Args:
        path: the file.
        every: seconds from one frame to the next; None: all.

    Raises:
        PredictError: the package for videos is not installed.
    """
    try:
        import av
    except ImportError:
        raise PredictError(f"{path}: videos need the package av: pip install 'pplc[video]'") from None
    import numpy as np

    seconds, due, empty = 0.0, 0.0, True
    try:
        with av.open(path) as container:
            if not container.streams.video:
                yield Source(path, error="the file holds no video")
                return
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            step = 1 / float(stream.average_rate or 25)
            for frame in container.decode(stream):
                seconds = frame.time if frame.time is not None else seconds + (0 if empty else step)
                empty = False
                if every is not None:
                    if seconds < due - step / 2:  # the frame nearest to each moment
                        continue
                    due = every * (int(seconds / every + 0.5) + 1)
                pixels = frame.to_ndarray(format="rgb24")
                turns = round(getattr(frame, "rotation", 0) / 90) % 4
                yield Source(f"{path}#t={seconds:.3f}", pixels=np.ascontiguousarray(np.rot90(pixels, turns)))
    except FileNotFoundError:
        yield Source(path, error="no such file")
    except Exception as error:  # FFmpeg's many kinds, and PyAV's own
        where = "is broken or no video" if empty else f"is broken after {seconds:.3f} s, the rest of it is missing"
        yield Source(path, error=f"{where}: {_told(error)}")
    else:
        if empty:
            yield Source(path, error="the video has no frames")


def _told(error: Exception) -> Any:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0]
