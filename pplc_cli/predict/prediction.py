"""The prediction for one image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from pplc_cli.predict.inputs.source import Source

if TYPE_CHECKING:
    from PIL.Image import Image

    ImageLike = Union[str, Path, bytes, np.ndarray, Image, Source]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        path: what was asked.
        top: the best labels with their scores, best first; empty where there was an error, or an embedding was asked.
        error: why there is no answer, else None.
        embedding: float32 (features,), what the classifier reads, where it was asked for.
        image: the decoded image, uint8 RGB (H, W, 3), where it was asked for.
    """

    path: str
    top: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    error: Optional[str] = None
    embedding: Optional[np.ndarray] = dataclasses.field(default=None, repr=False, compare=False)
    image: Optional[np.ndarray] = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def label(self) -> Optional[str]:
        """The best label."""
        return self.top[0][0] if self.top else None

    @property
    def score(self) -> Optional[float]:
        """The best label's probability."""
        return self.top[0][1] if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        if self.embedding is not None:
            return {"path": self.path, "embedding": self.embedding.tolist()}
        top = [{"label": label, "score": round(score, 6)} for label, score in self.top]
        return {"path": self.path, "label": self.label, "score": top[0]["score"], "top": top}


@dataclasses.dataclass
class InferenceTime:
    """Where the time of predictions went: seconds, of all threads together where it is not said otherwise.

    Attributes:
        total: from first to last, on the clock.
    """

    images: int = 0
    batches: int = 0
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    total: float = 0.0

    def report(self, batch_size: int) -> str:
        """PaddleX's block of lines."""
        images, batches = max(1, self.images), max(1, self.batches)
        latency = self.total * 1000 / images
        return "\n".join(
            [
                "------------------ Inference Time Info ----------------------",
                f"total_time(ms): {self.total * 1000:.1f}, img_num: {self.images}, batch_size: {batch_size}",
                f"average latency time(ms): {latency:.2f}, QPS: {1000 / latency if latency else 0.0:f}",
                f"preprocess_time_per_im(ms): {self.preprocess * 1000 / images:.2f}, "
                f"inference_time_per_batch(ms): {self.inference * 1000 / batches:.2f}, "
                f"postprocess_time_per_im(ms): {self.postprocess * 1000 / images:.2f}",
            ]
        )
