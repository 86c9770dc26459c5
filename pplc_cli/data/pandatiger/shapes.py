"""Shapes with fur and shadow, painted onto an image."""

from __future__ import annotations

from typing import Union

import cv2
import numpy as np

Colour = Union[tuple, np.ndarray]  # (red, green, blue), 0..255; images stay RGB until they are encoded
Rng = np.random.Generator

INK, WHITE = (26, 20, 22), (252, 250, 246)


def noise(rng: Rng, shape: tuple, cell: int) -> np.ndarray:
    """Draw a smooth random field around 0 with blobs about `cell` pixels wide."""
    small = rng.normal(0, 1, (shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
    return cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def oval(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """Outline of an ellipse turned by `turn` degrees."""
    angle = np.linspace(0, 2 * np.pi, 56, endpoint=False)
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    px, py = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack([x + c * px - s * py, y + s * px + c * py], axis=1)


def hull(*outlines: np.ndarray) -> np.ndarray:
    """Convex hull of the given outlines; that of two circles is a limb."""
    return cv2.convexHull(np.concatenate(outlines).astype(np.float32))[:, 0]


def wedge(start: tuple, end: tuple, width: float, bend: float = 0.0) -> np.ndarray:
    """A tapering, bent stripe that is widest near its start and ends in a point."""
    begin, along = np.array(start, float), np.subtract(end, start)
    t = np.linspace(0, 1, 9)[:, None]
    side = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-6)
    middle = begin + along * t + side * bend * np.sin(np.pi * t)
    half = side * width * np.sqrt(1 - t) * (0.65 + 0.35 * np.sin(np.pi * t))
    return np.concatenate([middle + half, (middle - half)[::-1]])


def stripes(rng: Rng, spine: tuple, count: int, width: float) -> list[np.ndarray]:
    """Stripes along a spine (x, y, x, y, half width), reaching inwards from both sides."""
    start, end, half = np.array(spine[:2], float), np.array(spine[2:4], float), spine[4]
    axis = (end - start) / np.hypot(*(end - start))
    found = []
    for t in (np.arange(count) + 0.5) / count:
        for out in (np.array([axis[1], -axis[0]]) * half, np.array([-axis[1], axis[0]]) * half):
            at = start + (end - start) * (t + rng.uniform(-0.25, 0.25) / count)
            tip = at + axis * half * rng.uniform(-0.1, 0.1) + out * rng.uniform(-0.15, 0.3)
            bend = half * rng.uniform(-0.08, 0.08)
            found.append(wedge(at + out * 1.1, tip, width * rng.uniform(0.7, 1.3), bend))
    return found


class Painter:
    """Paints shaded, furry shapes onto an RGB image, in coordinates of its own."""

    def __init__(self, image: np.ndarray, rng: Rng, matrix: np.ndarray, fur: np.ndarray) -> None:
        self.image, self.rng, self.matrix, self.fur = image, rng, matrix, fur

    def at(self, x: float, y: float, scale: float, turn: float = 0.0) -> Painter:
        """Return a painter of the same image with another origin, scale and direction."""
        c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
        move = np.array([[c, -s, x], [s, c, y], [0, 0, 1]])
        return Painter(self.image, self.rng, self.matrix @ move, self.fur)

    def paint(
        self,
        outlines: list,
        colour: Colour,
        clip: np.ndarray | None = None,
        depth: float = 0.0,
        alpha: float = 1.0,
    ) -> np.ndarray:
        """Fill the outlines (inside `clip` only); `depth` darkens rims and undersides. Returns the mask."""
        mask = np.zeros(self.image.shape[:2], np.uint8)
        for outline in outlines:
            points = outline @ self.matrix[:2, :2].T + self.matrix[:2, 2]
            cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        if clip is not None:
            mask = cv2.multiply(mask, clip, scale=1 / 255)
        x, y, w, h = cv2.boundingRect(mask)
        if w and h:
            box = (slice(y, y + h), slice(x, x + w))
            share = mask[box].astype(np.float32)[..., None] * (alpha / 255)
            light = self.fur[box]
            if depth:
                size = max(3, min(w, h) // 3)
                soft = cv2.blur(mask[box], (size, size), borderType=cv2.BORDER_CONSTANT) / 255
                light = light * (1 - depth * (1 - soft)) * np.linspace(1.06, 1 - 0.6 * depth, h)[:, None]
            self.image[box] = self.image[box] * (1 - share) + light[..., None] * np.array(colour) * share
        return mask
