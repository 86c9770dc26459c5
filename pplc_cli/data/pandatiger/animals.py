"""Pandas and tigers in several coats and poses."""

from __future__ import annotations

from typing import NamedTuple, Optional

import numpy as np

from pplc_cli.data.pandatiger.shapes import INK, WHITE, Colour, Painter, Rng, hull, noise, oval, stripes, wedge

CLASSES = ("panda", "tiger")


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
    foot: Optional[float]  # height of the shadow on the ground
    tail: Optional[tuple[float, float]]
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
    dots = [oval(x, y, 0.13, 0.13) for x, y in zip(xs, ys)]
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
