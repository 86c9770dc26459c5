"""The prediction of one image, and the time that predictions took."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

import numpy as np

from pplc_cli.predict.confidence import UNKNOWN


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The labels or the embedding of one image, or why there are none.

    Attributes:
        path: the image's path or other name.
        top: the best labels with their scores, best first; empty for errors and embeddings.
        error: why the image could not be used; None for a usable image.
        embedding: the penultimate-layer embedding, float32 (features,), if requested.
        image: the decoded image, uint8 RGB (H, W, 3), if requested.
        unknown: whether the image is unlike all training images; None if that was not asked.
        distance: from the most similar training images, see :class:`pplc_cli.predict.confidence.Features`.
        label_set: labels that hold the right one with the requested probability, best first; None if not asked.
    """

    path: str
    top: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    error: Optional[str] = None
    embedding: Optional[np.ndarray] = dataclasses.field(default=None, repr=False, compare=False)
    image: Optional[np.ndarray] = dataclasses.field(default=None, repr=False, compare=False)
    unknown: Optional[bool] = None
    distance: Optional[float] = None
    label_set: Optional[list[str]] = None

    @property
    def label(self) -> Optional[str]:
        """The best label; "unknown" for an unknown image."""
        if self.unknown:
            return UNKNOWN
        return self.top[0][0] if self.top else None

    @property
    def score(self) -> Optional[float]:
        """The best label's probability."""
        return self.top[0][1] if self.top else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that ``--json`` prints."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        if self.embedding is not None:
            return {"path": self.path, "embedding": self.embedding.tolist()}
        top = [{"label": label, "score": round(score, 6)} for label, score in self.top]
        found = {"path": self.path, "label": self.label, "score": top[0]["score"], "top": top}
        if self.unknown is not None and self.distance is not None:
            found |= {"unknown": self.unknown, "distance": round(self.distance, 6)}
        return found if self.label_set is None else {**found, "set": self.label_set}


@dataclasses.dataclass
class InferenceTime:
    """How the time of predictions was spent, in seconds; preprocess, inference and postprocess add up all threads.

    Attributes:
        total: wall-clock time of the calls.
    """

    images: int = 0
    batches: int = 0
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    total: float = 0.0

    def report(self, batch_size: int) -> str:
        """Format the times as PaddleX does."""
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
