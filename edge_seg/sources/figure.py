"""Draws the person and the room of the synthetic source: parts with exact outlines and soft shading.

A drawing that the mask model takes for a person: what it needs is a head with face and hair, neck,
shoulders at selfie distance, light from one side, and a room with some structure behind.
Everything is drawn on a canvas where one unit is the shorter side of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.types import F32, U8

UNIT = 720
"""Pixels of the canvas per unit; parts are scaled from it to the picture's size."""
CANVAS = (960, 900)
"""Canvas of the person, (width, height). Its top edge is the picture's, its middle the person's."""
NECK = (480, 430)
ELBOW = (168, 716)
"""Pivots of the head and of the raised forearm on the canvas, (x, y)."""
CHEST_Y = 0.77
"""Upper edge of what is printed on the shirt, in units."""

RGB = tuple[int, int, int]


class Look(NamedTuple):
    """What one person and one room look like."""

    skin: RGB
    hair: RGB
    shirt: RGB
    wall: RGB


LOOKS = (
    Look(skin=(222, 172, 142), hair=(62, 42, 32), shirt=(52, 84, 122), wall=(196, 190, 178)),
    Look(skin=(146, 98, 72), hair=(28, 24, 24), shirt=(150, 58, 52), wall=(150, 168, 172)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A piece of the person on the canvas."""

    rgb: F32
    """Shape: (height, width, 3), float32, 0 to 255, defined also outside of the outline."""
    alpha: F32
    """Shape: (height, width), float32 in [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A person in three parts that move against each other, back to front."""

    body: Part
    head: Part
    forearm: Part


def draw_figure(look: Look, seed: int) -> Figure:
    """The person of a look. The same arguments give the same pixels."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    return Figure(_body(look, rng), _head(look, rng), _forearm(look))


def draw_room(look: Look, width: int, height: int, seed: int) -> U8:
    """A room out of focus: wall, window, shelf with books, a plant. Shape: (height, width, 3), uint8, RGB."""
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    w, h = 1280, round(1280 * height / width)
    x = np.linspace(0, 1, w, dtype=np.float32)[None, :, None]
    y = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    room = np.array(look.wall, np.float32) * (1.08 - 0.28 * x - 0.18 * y)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), 6)
    room += texture[..., None] * 22

    window = _box(w, h, 0.02, 0.05, 0.21, 0.62)
    room = _over(room, np.array((232, 240, 248), np.float32) * (1.02 - 0.25 * y), window)
    for left, top, right, bottom in ((0.11, 0.05, 0.118, 0.62), (0.02, 0.32, 0.21, 0.335)):
        room = _over(room, _flat((150, 140, 128)), _box(w, h, left, top, right, bottom))

    room = _over(room, _flat((104, 76, 54)) * (1.1 - 0.4 * y), _box(w, h, 0.74, 0.08, 0.99, 0.9))
    for shelf in range(4):
        top = 0.1 + shelf * 0.2
        room = _over(room, _flat((58, 42, 32)), _box(w, h, 0.75, top, 0.98, top + 0.175))
        left = 0.755
        while left < 0.955:
            thick = rng.uniform(0.009, 0.022)
            tall = rng.uniform(0.09, 0.155)
            colour = rng.uniform(50, 190, 3).astype(np.float32)
            book = _box(w, h, left, top + 0.175 - tall, left + thick, top + 0.175)
            room = _over(room, colour * (1.15 - 0.4 * (x - left) / 0.02 * (x > left)), book)
            left += thick + (rng.uniform(0.02, 0.05) if rng.random() < 0.2 else 0.002)

    room = _over(room, _flat((120, 84, 60)), _box(w, h, 0.0, 0.86, 1.0, 1.0))
    for _ in range(26):
        angle = rng.uniform(-2.6, -0.5)
        tip = (0.29 * w + np.cos(angle) * 0.075 * w, 0.72 * h + np.sin(angle) * 0.24 * h)
        leaf = _stroke(w, h, [(0.29 * w, 0.76 * h), tip], rng.uniform(6, 16))
        room = _over(room, _flat((48, 104, 52)) * rng.uniform(0.6, 1.3), leaf)
    room = _over(room, _flat((170, 92, 62)), _box(w, h, 0.265, 0.74, 0.315, 0.88))

    room = cv2.GaussianBlur(room, (0, 0), 2.2)  # out of focus, as behind a person near the lens
    return cv2.resize(np.clip(room, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)


def _body(look: Look, rng: np.random.Generator) -> Part:
    w, h = CANVAS
    torso = _smooth(
        [(370, 505), (300, 545), (205, 590), (142, 660), (112, 780), (100, 960), (860, 960), (848, 780)]
        + [(818, 660), (755, 590), (660, 545), (590, 505), (560, 520), (480, 560), (400, 520)]
    )
    neck = _smooth(
        [
            (408, 380),
            (412, 470),
            (385, 520),
            (430, 575),
            (480, 590),
            (530, 575),
            (575, 520),
            (548, 470),
            (552, 380),
        ]
    )
    cloth, throat = _fill(w, h, torso), _fill(w, h, neck)
    folds = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), sigmaX=9, sigmaY=38)
    weave = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), 1.2)
    shirt = _lit(_flat(look.shirt), cloth, 60) * (1 + 2.2 * folds + 0.09 * weave)[..., None]
    skin = _lit(_flat(look.skin), throat, 40)
    # The chin throws its shadow on the neck, the collar its own.
    shadow = cv2.GaussianBlur(_fill(w, h, _ellipse(480, 425, 120, 90)), (0, 0), 16)
    skin = skin * (1 - 0.45 * shadow)[..., None]
    collar = cv2.GaussianBlur(
        _stroke(
            w, h, _smooth([(378, 508), (430, 580), (480, 597), (530, 580), (582, 508)], closed=False), 14
        ),
        (0, 0),
        2,
    )
    rgb = _over(shirt, skin, throat)
    rgb = _over(rgb, shirt * 0.72, collar)
    for side in (-1, 1):  # the seam between sleeve and chest
        seam = _stroke(
            w,
            h,
            _smooth(
                [(480 + side * 258, 600), (480 + side * 236, 690), (480 + side * 244, 900)], closed=False
            ),
            7,
        )
        rgb = _over(rgb, rgb * 0.7, cv2.GaussianBlur(seam, (0, 0), 3))
    return Part(rgb, np.maximum(cloth, throat))


def _head(look: Look, rng: np.random.Generator) -> Part:
    w, h = CANVAS
    face = _fill(
        w,
        h,
        _smooth(
            [
                (480, 82),
                (400, 104),
                (362, 180),
                (358, 270),
                (376, 350),
                (420, 418),
                (480, 446),
                (540, 418),
                (584, 350),
                (602, 270),
                (598, 180),
                (560, 104),
            ]
        ),
    )
    ears = np.maximum(_fill(w, h, _ellipse(356, 278, 18, 42)), _fill(w, h, _ellipse(604, 278, 18, 42)))
    skull = np.maximum(face, ears)
    hair = _fill(
        w,
        h,
        _smooth(
            [
                (480, 44),
                (395, 60),
                (348, 130),
                (340, 230),
                (352, 262),
                (366, 220),
                (380, 168),
                (430, 142),
                (510, 130),
                (570, 150),
                (594, 210),
                (606, 262),
                (620, 230),
                (612, 130),
                (565, 60),
            ]
        ),
    )

    skin = _flat(look.skin)
    rgb = _lit(skin, skull, 55)
    pores = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), 3)
    rgb = rgb * (1 + 0.12 * pores)[..., None]

    def tint(colour: F32, area: F32, blur: float, strength: float) -> None:
        nonlocal rgb
        rgb = _over(rgb, colour, cv2.GaussianBlur(area, (0, 0), blur) * strength)

    dark = skin * np.array((0.58, 0.5, 0.46), np.float32)
    rosy = skin * np.array((1.02, 0.82, 0.8), np.float32)
    for side in (-1, 1):
        x = 480 + side * 54
        tint(rosy, _fill(w, h, _ellipse(x + side * 12, 320, 34, 24)), 14, 0.6)
        tint(dark, _fill(w, h, _ellipse(x, 244, 38, 22)), 9, 0.7)
        tint(_flat((236, 232, 226)), _fill(w, h, _ellipse(x, 252, 26, 12)), 1, 1)
        tint(_flat((70, 52, 38)), _fill(w, h, _ellipse(x, 251, 11.5, 11.5)), 1, 1)
        tint(_flat((14, 12, 12)), _fill(w, h, _ellipse(x, 251, 5.5, 5.5)), 0.7, 1)
        tint(_flat((255, 255, 255)), _fill(w, h, _ellipse(x - 4, 247, 2.6, 2.6)), 0.7, 1)
        lid = _smooth([(x - 29, 254), (x - 12, 240), (x + 12, 240), (x + 29, 254)], closed=False)
        tint(dark * 0.55, _stroke(w, h, lid, 5), 1, 0.9)
        brow = _smooth([(x - 36, 222), (x - side * 8, 208), (x + 36, 222)], closed=False)
        tint(_flat(look.hair), _stroke(w, h, brow, 11), 2, 0.85)
        tint(dark * 0.7, _fill(w, h, _ellipse(480 + side * 13, 328, 7, 4)), 2, 0.9)
    tint(dark, _stroke(w, h, [(497, 250), (506, 312)], 12), 7, 0.55)
    tint(dark, _fill(w, h, _ellipse(480, 334, 30, 8)), 5, 0.6)
    tint(skin * 1.18, _stroke(w, h, [(477, 250), (476, 310)], 9), 5, 0.5)
    tint(_flat((166, 84, 80)) * (np.mean(look.skin) / 178), _fill(w, h, _ellipse(480, 376, 40, 12)), 2, 0.8)
    tint(
        dark * 0.5,
        _stroke(w, h, _smooth([(441, 374), (465, 373), (480, 376), (495, 373), (519, 374)], closed=False), 4),
        1,
        0.9,
    )
    tint(dark, _fill(w, h, _ellipse(480, 398, 28, 6)), 5, 0.5)
    tint(dark, cv2.subtract(face, _fill(w, h, _ellipse(474, 255, 112, 185))), 14, 0.45)

    strands = cv2.GaussianBlur(rng.normal(0, 1, (h, w)).astype(np.float32), (0, 0), sigmaX=1.3, sigmaY=9)
    coat = _lit(_flat(look.hair), hair, 40) * (1 + 1.6 * strands)[..., None]
    sheen = cv2.GaussianBlur(_fill(w, h, _ellipse(440, 88, 62, 16)), (0, 0), 12)
    rgb = _over(rgb, coat + 46 * sheen[..., None], hair)
    return Part(rgb, np.maximum(skull, hair))


def _forearm(look: Look) -> Part:
    """Raised, with the palm to the viewer; it turns about the elbow."""
    w, h = CANVAS
    x, y = ELBOW
    arm = _smooth(
        [
            (x - 46, y + 30),
            (x - 44, y - 60),
            (x - 28, y - 190),
            (x + 26, y - 190),
            (x + 42, y - 60),
            (x + 46, y + 30),
            (x, y + 56),
        ]
    )
    palm = _smooth(
        [
            (x - 30, y - 180),
            (x - 48, y - 240),
            (x - 40, y - 290),
            (x, y - 298),
            (x + 42, y - 286),
            (x + 46, y - 236),
            (x + 28, y - 180),
        ]
    )
    shape = np.maximum(_fill(w, h, arm), _fill(w, h, palm))
    for root, tip in (
        ((-32, -282), (-50, -352)),
        ((-11, -290), (-16, -376)),
        ((11, -290), (17, -374)),
        ((32, -282), (47, -352)),
        ((38, -224), (84, -262)),
    ):
        shape = np.maximum(shape, _stroke(w, h, [(x + root[0], y + root[1]), (x + tip[0], y + tip[1])], 24))
    rgb = _lit(_flat(look.skin), shape, 18)
    sleeve = _smooth(
        [(x - 60, y + 50), (x - 58, y - 70), (x, y - 82), (x + 58, y - 70), (x + 60, y + 50), (x, y + 70)]
    )
    cloth = _fill(w, h, sleeve)
    rgb = _over(rgb, _lit(_flat(look.shirt), cloth, 30), cloth)
    return Part(rgb, np.maximum(shape, cloth))


def _flat(colour: RGB) -> F32:
    return np.array(colour, np.float32).reshape(1, 1, 3)


def _lit(colour: F32, shape: F32, depth: float) -> F32:
    """Colour on a form that bulges towards the viewer, with light from the upper left."""
    height = cv2.GaussianBlur(shape, (0, 0), depth) * shape
    slope_x = cv2.Sobel(cv2.GaussianBlur(height, (0, 0), depth / 3), cv2.CV_32F, 1, 0) * depth / 8
    slope_y = cv2.Sobel(cv2.GaussianBlur(height, (0, 0), depth / 3), cv2.CV_32F, 0, 1) * depth / 8
    light = np.clip(1 + 0.55 * slope_x + 0.35 * slope_y + 0.12 * (height - 0.8), 0.35, 1.25)
    return np.asarray(colour * light[..., None], np.float32)


def _over(below: F32, above: F32, alpha: F32) -> F32:
    a = alpha[..., None]
    return np.asarray(below * (1 - a) + above * a, np.float32)


def _fill(width: int, height: int, outline: NDArray[np.float64]) -> F32:
    """Area inside of an outline, antialiased. Shape: (height, width), float32 in [0, 1]."""
    area = np.zeros((height, width), np.uint8)
    cv2.fillPoly(area, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return area.astype(np.float32) / 255


def _stroke(width: int, height: int, points: object, thickness: float) -> F32:
    area = np.zeros((height, width), np.uint8)
    line = np.round(np.asarray(points, np.float64) * 16).astype(np.int32)
    cv2.polylines(area, [line], False, 255, max(1, round(thickness)), cv2.LINE_AA, shift=4)
    return area.astype(np.float32) / 255


def _box(width: int, height: int, left: float, top: float, right: float, bottom: float) -> F32:
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) * (width, height)
    return _fill(width, height, corners)


def _ellipse(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _smooth(points: list[tuple[float, float]], closed: bool = True) -> NDArray[np.float64]:
    """A uniform Catmull-Rom spline through the points."""
    p = np.array(points, np.float64)
    padded = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate(pieces)
