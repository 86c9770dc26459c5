"""What surrounds an animal: the ground, plants and other objects; and what a camera makes of it."""

from __future__ import annotations

import cv2
import numpy as np

from pplc_cli.data.pandatiger.shapes import Painter, Rng, hull, noise, oval

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


def add_plant(image: np.ndarray, rng: Rng, kind: str, x: float, y: float) -> None:
    """Draw one blade of grass rooted at (x, y), or one bamboo stalk across the whole height."""
    green = rng.uniform((60, 110, 40), (150, 190, 90)) * rng.uniform(0.6, 1)
    lean, height = rng.uniform(-9, 9), image.shape[0]
    if kind == "grass":
        add_line(image, (x, y), (x + lean, y - rng.uniform(6, 26)), green, int(rng.integers(1, 3)))
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
    first, last = np.array([start, end]).astype(int).tolist()
    cv2.line(image, first, last, colour.tolist(), max(1, int(thick)), cv2.LINE_AA)


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
            leaves = [(rng.normal(0, 0.45, 2), rng.uniform(0, 180)) for _ in range(20)]
            p.paint([oval(x, y, 0.3, 0.1, turn) for (x, y), turn in leaves], colour)
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
