"""Save a network in Paddle's inference format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from pplc_cli.base.errors import ExportError

_PADDLE_FILES = ("inference.json", "inference.pdiparams")


def save_graph(
    paddle: Any, network: Any, size: Optional[tuple[int, int]], folder: Path, *, batch: Optional[int] = None
) -> None:
    """The network with softmax as Paddle's static graph, input ``x`` (N, 3, H, W)."""

    class WithSoftmax(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Any) -> Any:
            return paddle.nn.functional.softmax(self.network(x), axis=1)

    _save(paddle, WithSoftmax(), size, folder, batch)


def _save(paddle: Any, layer: Any, size: Optional[tuple[int, int]], folder: Path, batch: Optional[int]) -> None:
    layer.eval()
    spec = paddle.static.InputSpec([batch, 3, *(size or (None, None))], "float32", name="x")
    paddle.jit.save(paddle.jit.to_static(layer, input_spec=[spec], full_graph=True), str(folder / "inference"))
    missing = [n for n in _PADDLE_FILES if not (folder / n).is_file()]
    if missing:
        raise ExportError(f"Paddle wrote no {' and '.join(missing)} to {folder}; check that it is Paddle 3")
