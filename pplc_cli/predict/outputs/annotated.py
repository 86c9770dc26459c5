"""Save or show images with their predicted labels drawn in."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pplc_cli.base.errors import PplcError, PredictError
from pplc_cli.base.language.messages import tr
from pplc_cli.base.storage.files import PathLike, atomic_file, user_path
from pplc_cli.base.text import file_name, unused
from pplc_cli.predict.confidence import UNKNOWN
from pplc_cli.predict.inputs.expand import base_of, classify
from pplc_cli.predict.inputs.source import ADDRESSES
from pplc_cli.predict.prediction import Prediction

_LONGEST = 65500  # pixels; libjpeg's limit of a side
_MARK = b"annotated by pplc"  # JPEG comment of the images written here: no other file is overwritten


class UndrawableImage(PredictError):
    """An annotated image cannot be drawn or encoded; others may be."""


def draw(prediction: Prediction) -> Any:
    """Draw the labels of a prediction into its image, and return a ``PIL.Image``; needs ``keep_images``."""
    from PIL import Image

    from pplc_cli.plots.annotate import annotate

    if prediction.image is None:
        raise ValueError(tr("expected a prediction made with keep_images=True"))
    lines = [f"{label}  {score:.2%}" for label, score in prediction.top]  # long labels are cut, percentages are not
    if prediction.unknown:
        lines = [UNKNOWN]
    return Image.fromarray(annotate(prediction.image, lines))


class AnnotatedFolder:
    """A folder of annotated images, with the subfolders of the originals; equal names do not overwrite each other.

    Attributes:
        folder: the folder.
        written: number of images written.
    """

    def __init__(self, folder: PathLike, arguments: Iterable[str] = ()) -> None:
        """
        Args:
            folder: created with the first image.
            arguments: those of the images; subfolders below them are kept.
        """
        self.folder, self.written = user_path(folder), 0
        self._bases = [base for base in (base_of(classify(argument)) for argument in arguments) if base is not None]
        self._taken: set[str] = set()

    def save(self, prediction: Prediction) -> Path:
        """Write ``NAME.jpg``, or ``NAME_2.jpg`` and so on if this object has written that name already.

        Raises:
            UndrawableImage: the image cannot be drawn or encoded: it is too large for JPEG or for the memory.
            PplcError: the file cannot be written, or it exists and is not an annotated image. So photographs are never
                overwritten, not even if the folder is that of the input.
        """
        from pplc_cli.plots.annotate import image_note

        path = self.folder / f"{unused(self._name(prediction.path), self._taken)}.jpg"
        if path.exists() and image_note(path, "comment") != _MARK:
            raise PredictError(
                tr("{path} exists and is not an annotated image; expected another folder for --save", path=path)
            )
        encoded = io.BytesIO()
        try:
            drawn = draw(prediction)
            if max(drawn.size) > _LONGEST:
                raise ValueError(
                    tr("{size} pixels, JPEG ends at {longest:,}", size="{} x {}".format(*drawn.size), longest=_LONGEST)
                )
            drawn.save(encoded, "JPEG", quality=92, comment=_MARK)
        except (PplcError, MemoryError, OSError, ValueError) as error:
            reason = str(error) or tr("out of memory")
            raise UndrawableImage(
                tr("{path}: cannot be drawn: {reason}", path=prediction.path, reason=reason)
            ) from None
        with atomic_file(path) as temporary:
            temporary.write_bytes(encoded.getbuffer())
        self.written += 1
        return path

    def _name(self, path: str) -> str:
        """The name of a copy without its suffix, relative to the folder."""
        if path.startswith(ADDRESSES):
            path = urlparse(path).path
        rest = Path(next((path[len(base) :] for base in self._bases if path.startswith(base)), Path(path).name))
        *folders, name = [part for part in rest.parts if part not in ("..", rest.anchor)] or ["picture"]
        return "/".join([*map(file_name, folders), file_name(Path(name).stem)])


def show(prediction: Prediction) -> None:
    """Open an annotated image in the system's image viewer.

    Raises:
        PredictError: there is no display.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise PredictError(tr("--show needs a display, and there is none here; use --save FOLDER"))
    draw(prediction).show(title=prediction.path)
