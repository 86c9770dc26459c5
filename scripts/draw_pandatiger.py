"""Draw the sample data set: pandas and tigers, one folder each, since photographs cannot be part of the repository.

Colours vary on purpose (coats, casts, distractors, camera metering), so that a classifier has to use shape and texture.
The same seed always gives the same pixels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

Colour = tuple  # (red, green, blue), 0..255; images stay RGB until they are encoded
Rng = np.random.Generator

CLASSES = ("panda", "tiger")
INK, WHITE = (26, 20, 22), (252, 250, 246)


class Coat(NamedTuple):
    """Colours of one animal; `dark` colours a panda's eye patches and a tiger's stripes."""

    fur: Colour
    limb: Colour
    belly: Colour
    dark: Colour
    nose: Colour
    iris: Colour


COAT_ODDS = (0.4, 0.2, 0.2, 0.2)
COATS = {
    "panda": (
        Coat((242, 240, 234), (34, 32, 36), (248, 246, 240), (30, 28, 32), (24, 22, 26), (70, 44, 28)),
        Coat((226, 212, 188), (44, 36, 34), (236, 224, 200), (38, 32, 30), (30, 24, 24), (70, 44, 28)),
        Coat((236, 206, 164), (104, 62, 36), (244, 222, 186), (96, 56, 34), (60, 34, 26), (60, 34, 22)),
        Coat((232, 186, 132), (84, 46, 26), (240, 208, 164), (76, 42, 26), (50, 28, 22), (60, 34, 22)),
    ),
    "tiger": (
        Coat((236, 142, 48), (234, 146, 58), (250, 240, 222), (38, 26, 22), (206, 120, 112), (226, 184, 60)),
        Coat((214, 158, 92), (214, 162, 100), (246, 236, 218), (54, 36, 26), (190, 116, 104), (196, 190, 80)),
        Coat((240, 236, 226), (236, 232, 222), WHITE, (46, 42, 44), (222, 150, 146), (120, 178, 214)),
        Coat((222, 208, 184), (220, 206, 182), WHITE, (52, 40, 36), (206, 140, 130), (140, 184, 200)),
    ),
}


class Pose(NamedTuple):
    """Positions of an animal's parts, in units of about half a head; y points down, the animal faces right."""

    odds: float
    sizes: tuple  # smallest and largest unit, as a share of the image's shorter side
    centre: float  # y that is placed at the middle of the image
    foot: float | None  # height of the shadow on the ground
    tail: tuple | None  # x, y
    trunk: tuple  # ellipses: x, y, rx, ry
    spine: tuple  # x, y, x, y of the ends, then half the width of the striped area
    band: tuple  # ellipse: the panda's dark shoulders
    belly: tuple  # ellipse
    limbs_behind: tuple  # x, y, x, y of the ends, radius at both ends, how far the limb swings
    limbs: tuple
    head: tuple  # x, y, scale


POSES = (
    Pose(
        0.25,
        (0.32, 0.46),
        0.15,
        None,
        None,
        ((0, 1.75, 1.5, 1.25),),
        (0, 0.7, 0, 2.6, 1.4),
        (0, 1.6, 1.6, 1.1),
        (0, 1.7, 0.5, 0.9),
        (),
        (),
        (0, 0, 1),
    ),  # close-up
    Pose(
        0.27,
        (0.21, 0.28),
        0.3,
        1.65,
        (-0.75, 1.2),
        ((0, 0.72, 0.98, 0.98), (0, 0.2, 0.78, 0.7)),
        (0, -0.4, 0, 1.7, 0.98),
        (0, -0.02, 1.0, 0.34),
        (0, 0.85, 0.55, 0.72),
        (),
        (
            (-0.72, 1.15, -0.86, 1.45, 0.4, 0.34, 0),
            (0.72, 1.15, 0.86, 1.45, 0.4, 0.34, 0),
            (-0.72, 0.12, -0.48, 0.75, 0.27, 0.22, 1),
            (0.72, 0.12, 0.48, 0.75, 0.27, 0.22, -1),
        ),
        (0, -0.78, 0.84),
    ),  # sitting
    Pose(
        0.28,
        (0.19, 0.26),
        0.2,
        1.45,
        (-1.3, -0.2),
        ((-0.75, 0.02, 0.82, 0.8), (0.7, -0.02, 0.8, 0.76), (0, 0.04, 1.2, 0.74)),
        (-1.45, 0, 1.3, 0, 0.8),
        (0.85, 0, 0.36, 1.0),
        (-0.1, 0.72, 0.95, 0.24),
        ((-0.8, 0.3, -0.8, 1.2, 0.36, 0.24, 1), (0.75, 0.3, 0.75, 1.2, 0.36, 0.24, -1)),
        ((-1.05, 0.3, -1.05, 1.28, 0.4, 0.26, -1), (0.98, 0.3, 0.98, 1.28, 0.4, 0.26, 1)),
        (1.5, -0.35, 0.74),
    ),  # walking
    Pose(
        0.2,
        (0.2, 0.28),
        0.3,
        1.0,
        (-1.75, 0.45),
        ((-0.75, 0.3, 1.3, 0.66), (-1.25, 0.38, 0.7, 0.66)),
        (-1.8, 0.3, 0.5, 0.3, 0.68),
        (0.2, 0.3, 0.4, 0.9),
        (-0.8, 0.9, 0.9, 0.2),
        (),
        (
            (-1.25, 0.75, -0.75, 0.92, 0.34, 0.2, 0),
            (0.3, 0.6, -0.2, 0.95, 0.3, 0.22, 0),
            (0.3, 0.6, 0.85, 0.95, 0.3, 0.22, 1),
        ),
        (0.4, -0.12, 0.8),
    ),  # lying
)

# Backgrounds: colours of the top and bottom of the sky (or wall) and of the ground, range of the horizon, objects.
SCENES = (
    ((120, 176, 232), (214, 232, 244), (104, 158, 70), (0.35, 0.6), "hills grass"),
    ((66, 112, 62), (150, 186, 112), (82, 112, 54), (0.6, 0.85), "bamboo grass"),
    ((236, 204, 140), (250, 232, 180), (206, 168, 92), (0.35, 0.6), "hills grass"),
    ((176, 194, 216), (226, 232, 240), (236, 240, 246), (0.3, 0.6), "hills rocks"),
    ((132, 128, 124), (164, 158, 150), (120, 112, 102), (0.3, 0.6), "rocks"),
    ((150, 190, 210), (206, 222, 220), (62, 118, 142), (0.25, 0.5), "hills ripples"),
    ((206, 190, 168), (222, 208, 186), (150, 104, 66), (0.55, 0.75), "boards"),
    ((150, 168, 186), (170, 186, 200), (96, 110, 138), (0.55, 0.75), "boards"),
    ((236, 146, 92), (250, 206, 132), (98, 74, 58), (0.4, 0.6), "hills grass"),
)

# Colour casts as 3x3 matrices on RGB: none, warm, cold, greyscale, sepia.
CAST_ODDS = (0.46, 0.15, 0.15, 0.14, 0.1)
CASTS = (
    np.eye(3),
    np.diag([1.12, 1.0, 0.80]),
    np.diag([0.84, 0.98, 1.14]),
    np.tile([0.30, 0.59, 0.11], (3, 1)),
    np.array([[0.39, 0.69, 0.17], [0.34, 0.62, 0.15], [0.27, 0.50, 0.12]]),
)

# Distractors have the colours of both animals, so that no colour belongs to one class.
OBJECTS = ("ball", "stone", "blanket", "zebra crossing", "bush")
OBJECT_COLOURS = ((30, 28, 32), (240, 238, 232), (230, 136, 48), (214, 158, 92), (120, 96, 76), (150,) * 3)


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


def paint_face(p: Painter, coat: Coat, look: float, eye: float) -> None:
    """Paint eyes, nose and mouth, the same for both animals. `look` moves the face sideways."""
    for side in (-1, 1):
        x = side * 0.40 + look
        p.paint([oval(x, -0.06, eye * 1.25, eye * 1.1, side * 18)], INK)
        p.paint([oval(x, -0.06, eye, eye * 0.88, side * 18)], coat.iris)
        p.paint([oval(x + look * 0.1, -0.06, eye * 0.55, eye * 0.62)], INK)
        p.paint([oval(x - 0.04, -0.11, eye * 0.3, eye * 0.3)], WHITE)
        p.paint([wedge((look, 0.53), (look + side * 0.3, 0.5), 0.035, side * 0.11)], INK)
    p.paint([hull(oval(look, 0.36, 0.025, 0.025), oval(look, 0.54, 0.02, 0.02))], INK)
    p.paint([hull(oval(look, 0.27, 0.17, 0.06), oval(look, 0.38, 0.05, 0.05))], coat.nose)
    p.paint([oval(look - 0.05, 0.26, 0.05, 0.02)], WHITE, alpha=0.5)


def paint_panda_head(p: Painter, coat: Coat, look: float) -> None:
    """Paint a wide white head with black ears and drooping black eye patches."""
    p.paint([oval(side * 0.74 - look * 0.3, -0.72, 0.34, 0.33) for side in (-1, 1)], coat.dark, depth=0.3)
    p.paint([oval(0, 0, 1.0, 0.9), oval(0, 0.24, 1.08, 0.68)], coat.fur, depth=0.3)
    p.paint([oval(look, 0.42, 0.42, 0.32)], coat.belly)
    p.paint([oval(side * 0.43 + look, 0.0, 0.23, 0.33, side * -32) for side in (-1, 1)], coat.dark)
    paint_face(p, coat, look, 0.12)


def paint_tiger_head(p: Painter, coat: Coat, look: float) -> None:
    """Paint a striped head with white cheeks, brows and muzzle, round ears with a pale middle, and whiskers."""
    for radius, colour in ((0.33, coat.dark), (0.27, coat.fur), (0.16, coat.belly)):
        p.paint([oval(side * 0.70 - look * 0.3, -0.70, radius, radius) for side in (-1, 1)], colour)
    both = [(side, y) for side in (-1, 1) for y in (0.1, 0.32, 0.5)]
    ruff = [wedge((side * 0.7, y), (side * 1.25, y + 0.16), 0.2, 0.04) for side, y in both]
    head = p.paint([oval(0, -0.02, 0.96, 0.9), oval(0, 0.28, 0.98, 0.6), *ruff], coat.fur, depth=0.3)
    marks = [wedge((look * 0.5, -0.95), (look, -0.35), 0.07)]
    pale = [oval(look, 0.74, 0.24, 0.14)]
    for side in (-1, 1):
        pale += [
            oval(side * 0.74, 0.48, 0.34, 0.34),
            oval(side * 0.38 + look, -0.24, 0.19, 0.15, side * 20),
            oval(side * 0.2 + look, 0.5, 0.29, 0.23),
        ]
        marks += [
            wedge((side * x, -0.98), (side * 0.1 + look, y), 0.06, side * -0.05)
            for x, y in ((0.28, -0.6), (0.46, -0.42))
        ]
        marks += [
            wedge((side * 1.05, y), (side * 0.65, y + 0.06), 0.07, side * 0.06) for y in (-0.32, -0.04, 0.22, 0.5)
        ]
    p.paint(pale, coat.belly, clip=head)
    p.paint(marks, coat.dark, clip=head)
    paint_face(p, coat, look, 0.15)
    p.paint(
        [
            wedge((side * 0.24 + look, 0.5 + y / 5), (side * 1.15 + look, 0.35 + y / 2), 0.012, side * 0.06)
            for side, y in both
        ],
        WHITE,
        alpha=0.8,
    )


def paint_limb(p: Painter, coat: Coat, place: tuple, step: float, shade: float, striped: bool) -> None:
    """Paint a leg or an arm with a paw."""
    x0, y0, x1, y1, r0, r1, swing = place
    x1 += swing * step
    paw = oval(x1 + 0.08, y1 + 0.04, r1 * 1.25, r1 * 0.95)
    leg = hull(oval(x0, y0, r0, r0), oval(x1, y1, r1, r1))
    mask = p.paint([leg, paw], np.multiply(coat.limb, shade), depth=0.3)
    if striped:
        p.paint(stripes(p.rng, (x0, y0, x1, y1, (r0 + r1) / 2), 4, 0.05), coat.dark, clip=mask)


def paint_tail(p: Painter, coat: Coat, x: float, y: float, striped: bool) -> None:
    """Paint a long ringed tail that curls up, or the panda's stub."""
    if not striped:
        p.paint([oval(x, y, 0.2, 0.17)], coat.fur, depth=0.3)
        return
    t = np.linspace(0, 1, 17)
    xs = x - 1.15 * np.sin(t * np.pi * p.rng.uniform(0.5, 0.9))
    ys = y + 0.25 * np.sin(t * np.pi) - p.rng.uniform(0.7, 1.4) * t**1.5
    dots = [oval(*spot, 0.13, 0.13) for spot in np.stack([xs, ys], axis=1)]
    p.paint([hull(*dots[i : i + 2]) for i in range(16)], coat.fur)
    p.paint([*dots[4:13:4], hull(*dots[15:])], coat.dark)


def paint_animal(page: Painter, rng: Rng, name: str) -> None:
    """Paint one animal in a random coat, pose and place, with its shadow on the ground."""
    height, width = page.image.shape[:2]
    striped = name == "tiger"
    coat = COATS[name][rng.choice(len(COATS[name]), p=COAT_ODDS)]
    pose = POSES[rng.choice(len(POSES), p=[pose.odds for pose in POSES])]
    # One image in five is framed carelessly, so that part of the animal is cut off.
    spread = 0.3 if rng.random() < 0.2 else 0.09
    x, y = width * (0.5 + rng.uniform(-spread, spread)), height * (0.5 + rng.uniform(-spread, spread) * 0.7)
    p = page.at(x, y, min(height, width) * rng.uniform(*pose.sizes), rng.normal(0, 8))
    if rng.random() < 0.5:
        p.matrix = p.matrix @ np.diag([-1.0, 1.0, 1.0])
    p = p.at(0, -pose.centre, 1.0)
    if pose.foot is not None:
        p.paint([oval(0, pose.foot, 1.9, 0.28)], INK, alpha=0.4)
    p.fur = 1 + 0.05 * noise(rng, (height, width), 2) + 0.05 * noise(rng, (height, width), 9)
    step = rng.uniform(-0.3, 0.3)
    if pose.tail is not None:
        paint_tail(p, coat, *pose.tail, striped)
    for place in pose.limbs_behind:
        paint_limb(p, coat, place, step, 0.8, striped)
    trunk = p.paint([oval(*part) for part in pose.trunk], coat.fur, depth=0.35)
    p.paint([oval(*pose.belly)], coat.belly, clip=trunk, alpha=0.85)
    marks = stripes(rng, pose.spine, 7, 0.085) if striped else [oval(*pose.band)]
    p.paint(marks, coat.dark, clip=trunk)
    for place in pose.limbs:
        paint_limb(p, coat, place, step, 1.0, striped)
    x, y, scale = pose.head
    head = p.at(x, y + rng.uniform(-0.1, 0.15), scale, rng.uniform(-14, 14))
    (paint_tiger_head if striped else paint_panda_head)(head, coat, rng.uniform(-0.14, 0.14))


def add_plant(image: np.ndarray, rng: Rng, kind: str, x: float, y: float) -> None:
    """Draw one blade of grass rooted at (x, y), or one bamboo stalk across the whole height."""
    green = rng.uniform((60, 110, 40), (150, 190, 90)) * rng.uniform(0.6, 1)
    lean, height = rng.uniform(-9, 9), image.shape[0]
    if kind == "grass":
        add_line(image, (x, y), (x + lean, y - rng.uniform(6, 26)), green, rng.integers(1, 3))
        return
    thick = rng.uniform(4, 10)
    add_line(image, (x, height), (x + lean, 0), green, thick)
    for knot in np.arange(rng.uniform(0, 40), height, 42):
        at = x + lean * (1 - knot / height)
        add_line(image, (at - thick / 2, knot), (at + thick / 2, knot), green * 0.6, 2)
        middle, turn = (int(at + rng.uniform(-20, 20)), int(knot + rng.uniform(0, 14))), rng.uniform(-50, 50)
        cv2.ellipse(image, middle, (15, 4), turn, 0, 360, (green * 0.85).tolist(), -1, cv2.LINE_AA)


def add_line(image: np.ndarray, start: tuple, end: tuple, colour: np.ndarray, thick: float) -> None:
    """Draw a straight line between two points, rounded to pixels."""
    ends = np.array([start, end]).astype(int).tolist()
    cv2.line(image, *ends, colour.tolist(), max(1, int(thick)), cv2.LINE_AA)


def add_object(page: Painter, rng: Rng, kind: str, x: float, y: float) -> None:
    """Draw a distractor in the colours of the animals."""
    first, second = (OBJECT_COLOURS[i] for i in rng.choice(len(OBJECT_COLOURS), 2, replace=False))
    p = page.at(x, y, rng.uniform(22, 52), rng.uniform(-25, 25))
    bars = [
        np.array([[k, -0.6], [k + 0.18, -0.6], [k * 1.2 + 0.2, 0.6], [k * 1.2, 0.6]]) for k in np.arange(-1.3, 1.2, 0.4)
    ]
    if kind == "ball":
        ball = p.paint([oval(0, 0, 0.6, 0.6)], first, depth=0.4)
        p.paint([oval(-0.3, 0, 0.1, 0.7), oval(0.3, 0, 0.1, 0.7)], second, clip=ball)
    elif kind == "stone":
        p.paint([hull(oval(0, 0, 0.7, 0.45), rng.uniform(-1, 1, (5, 2)) * (0.9, 0.6))], first, depth=0.4)
    elif kind == "bush":
        for colour in ((52, 92, 44), (92, 140, 62)):
            p.paint([oval(*rng.normal(0, 0.45, 2), 0.3, 0.1, rng.uniform(0, 180)) for _ in range(20)], colour)
    else:
        if kind == "blanket":
            p.paint([hull(*bars)], first, depth=0.2)
        p.paint(bars, second)


def add_objects(page: Painter, rng: Rng, kinds: tuple, count: int, low: float) -> None:
    """Scatter distractors over the part of the image below `low`, a share of the height."""
    height, width = page.image.shape[:2]
    for _ in range(count):
        add_object(page, rng, str(rng.choice(kinds)), rng.uniform(0, width), rng.uniform(low, 1) * height)


def paint_scene(page: Painter, rng: Rng) -> None:
    """Fill the image with a random background; the ground starts at the horizon."""
    high, low, ground, horizons, things = SCENES[rng.integers(len(SCENES))]
    image, (height, width) = page.image, page.image.shape[:2]
    horizon = int(height * rng.uniform(*horizons))
    image[:horizon] = np.linspace(high, low, horizon)[:, None]
    if "hills" in things:
        hills = [oval(x, horizon, *rng.uniform((50, 12), (130, 50))) for x in rng.uniform(0, width, 4)]
        page.paint(hills, np.multiply(ground, 0.55) + np.multiply(low, 0.4))
    image[horizon:] = np.array(ground) * np.linspace(0.85, 1.1, height - horizon)[:, None, None]
    for y in range(horizon, height, 9):
        if "ripples" in things:
            x = rng.uniform(0, width)
            add_line(image, (x, y), (x + rng.uniform(20, 90), y), np.multiply(ground, 1.4), 2)
        if "boards" in things:
            add_line(image, (0, y), (width, y), np.multiply(ground, rng.uniform(0.7, 0.95)), 2)
    grain = 0.05 * noise(rng, (height, width), 40)
    grain[horizon:] += 0.1 * noise(rng, (height, width), 5)[horizon:]
    image *= 1 + grain[..., None]
    add_objects(page, rng, ("stone",), 7 if "rocks" in things else 0, horizon / height)
    for _ in range(14 if "bamboo" in things else 0):
        add_plant(image, rng, "bamboo", rng.uniform(0, width), height)
    for y in sorted(rng.uniform(horizon, height + 15, 130 if "grass" in things else 0)):
        add_plant(image, rng, "grass", rng.uniform(0, width), y)


def develop(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Imitate the camera: uneven light, metering, colour cast, blur and noise."""
    height, width = image.shape[:2]
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = 1 + rng.uniform(-0.22, 0.22) * u + rng.uniform(-0.22, 0.22) * v
    light -= rng.uniform(0, 0.35) * (u * u + v * v) / 2
    if rng.random() < 0.25:  # an object outside the image casts a shadow
        light[u * rng.uniform(-1, 1) + v * rng.uniform(-1, 1) > rng.uniform(0.1, 0.5)] *= 0.65
        light = cv2.blur(light, (9, 9))
    image = image * light[..., None]
    # Metering moves mean and contrast towards random values; otherwise the mean colour would reveal the class.
    mean, contrast = (part[:, 0] for part in cv2.meanStdDev(image))
    gain = rng.uniform(46, 70) * rng.uniform(0.88, 1.12, 3) / (contrast + 1)
    wanted = rng.uniform(95, 165) * rng.uniform(0.88, 1.12, 3)
    image = (image - mean) * gain**0.9 + mean + 0.75 * (wanted - mean)
    image = cv2.transform(image, CASTS[rng.choice(len(CASTS), p=CAST_ODDS)])
    blur = rng.uniform(0, 1.4)
    if blur > 0.5:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    image = image + rng.normal(0, rng.uniform(1, 9), (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_image(seed: int, label: int, index: int) -> tuple[np.ndarray, int]:
    """Draw one RGB image of class `label`; return it and the JPEG quality to save it with."""
    rng = np.random.default_rng([seed, label, index])
    height, width = int(rng.integers(240, 281)), int(rng.integers(288, 321))
    if rng.random() < 0.4:
        height, width = width, height
    image = np.zeros((height, width, 3), np.float32)
    page = Painter(image, rng, np.eye(3), np.ones((height, width), np.float32))
    paint_scene(page, rng)
    add_objects(page, rng, OBJECTS, int(rng.integers(0, 5)), 0.4)
    paint_animal(page, rng, CLASSES[label])
    add_objects(page, rng, OBJECTS, int(rng.integers(0, 3)), 0.85)
    for _ in range(int(rng.integers(1, 3)) if rng.random() < 0.3 else 0):
        add_plant(image, rng, "bamboo", rng.uniform(0, width), height)
    return develop(image, rng), int(rng.integers(60, 96))


def write_image(path: Path, image: np.ndarray, quality: int) -> None:
    """Encode as JPEG and write; a file with the final name is always complete."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OSError(f"could not encode {path}")
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data.tobytes())
    part.replace(path)


def main() -> int:
    """Read the command line and draw both folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("datasets/pandatiger"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument("--per-class", type=int, default=150, help="images per animal (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="random seed; the same seed repeats the images")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    args = parser.parse_args()
    if args.per_class < 1 or args.seed < 0:
        parser.error("--per-class must be at least 1 and --seed at least 0")
    if args.out.is_file() or (args.out.is_dir() and any(args.out.iterdir()) and not args.force):
        print(f"error: expected --out to be a new or empty folder, got {args.out}; --force adds to it", file=sys.stderr)
        return 1
    cv2.setNumThreads(1)
    for label, name in enumerate(CLASSES):
        (args.out / name).mkdir(parents=True, exist_ok=True)
        for index in range(args.per_class):
            path = args.out / name / f"{name}_{index + 1:04d}.jpg"
            write_image(path, *draw_image(args.seed, label, index))
    print(f"{args.per_class} images each of {' and '.join(CLASSES)} written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
