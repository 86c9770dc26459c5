"""Save a network in Paddle's inference format."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import ExportError, one_line
from pplc_cli.base.language.messages import tr
from pplc_cli.base.paddle import EXCLUSIVE

PADDLE_FILES = ("inference.json", "inference.pdiparams")


def save_graph(
    paddle: Any, network: Any, size: Optional[tuple[int, int]], folder: Path, *, batch: Optional[int] = None
) -> None:
    """Save the probabilities of a network as Paddle's static graph with input ``x``, (N, 3, H, W).

    Args:
        paddle: the module.
        network: a layer from images to logits, or an ensemble.
        size: height and width of the images; None: any size.
        folder: where to write.
        batch: fixed batch size; None: variable.

    Raises:
        ExportError: Paddle failed, or wrote other files than expected.
    """

    from pplc_cli.models.ensemble import probabilities_of

    class WithSoftmax(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Any) -> Any:
            return probabilities_of(self.network, x)

    save_layer(paddle, WithSoftmax(), size, folder, batch)


@contextlib.contextmanager
def converting() -> Iterator[None]:
    """Let this thread alone make static graphs, and Paddle write their code into a temporary folder.

    Paddle's own choice is the home folder, which may be missing or read-only.
    """
    from paddle.jit.dy2static import utils

    with EXCLUSIVE, tempfile.TemporaryDirectory(prefix="pplc-") as folder:
        before = utils.get_temp_dir
        utils.get_temp_dir = lambda: folder
        try:
            yield
        finally:
            utils.get_temp_dir = before


def save_layer(paddle: Any, layer: Any, size: Optional[tuple[int, int]], folder: Path, batch: Optional[int]) -> None:
    """Save a layer as it is; the arguments and errors are those of :func:`save_graph`."""
    layer.eval()
    spec = paddle.static.InputSpec([batch, 3, *(size or (None, None))], "float32", name="x")
    try:
        with converting():
            paddle.jit.save(paddle.jit.to_static(layer, input_spec=[spec], full_graph=True), str(folder / "inference"))
    except RuntimeError as error:
        raise ExportError(
            tr("Paddle cannot write this network: {reason}", reason=one_line(error, stack=True))
        ) from error
    missing = [name for name in PADDLE_FILES if not (folder / name).is_file()]
    if missing:
        raise ExportError(
            tr(
                "Paddle did not write {missing} to {folder}; Paddle 3 is required",
                missing=", ".join(missing),
                folder=folder,
            )
        )
