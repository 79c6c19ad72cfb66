"""The synthetic person: parts with exact outlines and soft shading.

The mask model has to take the drawing for a person. What it needs is a head with face and hair, a neck,
shoulders at selfie distance and light from one side: the int8 model then finds the person with an IoU of
0.96 to 0.99. One unit is the shorter side of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from edge_seg.sources.brush import RGB, Brush, curve, flat, lit, paint, path, soft
from edge_seg.types import F32

UNIT = 720
"""Pixels of the canvas per unit; parts are scaled from it to the picture's size."""
CANVAS = (960, 900)
"""(width, height) in pixels. At rest, x = 480 is the picture's middle and y = 720 its lower edge."""
NECK = (480, 430)
ELBOW = (168, 716)
"""Pivots of the head and of the raised forearm on the canvas, (x, y)."""
CHEST_Y = 0.77
"""Upper edge of what is printed on the shirt, in units."""

_TORSO = path(
    "370,505 300,545 205,590 142,660 112,780 100,960 860,960 848,780 818,660 755,590 660,545 590,505 "
    "560,520 480,560 400,520"
)
_NECK = path("408,380 412,470 385,520 430,575 480,590 530,575 575,520 548,470 552,380")
_COLLAR = path("378,508 430,580 480,597 530,580 582,508")
_FACE = path("480,82 400,104 362,180 358,270 376,350 420,418 480,446 540,418 584,350 602,270 598,180 560,104")
_HAIR = path(
    "480,44 395,60 348,130 340,230 352,262 366,220 380,168 430,142 510,130 570,150 594,210 606,262 "
    "620,230 612,130 565,60"
)
_LIPS = path("441,374 465,373 480,376 495,373 519,374")
_FOREARM = path("-46,30 -44,-60 -28,-190 26,-190 42,-60 46,30 0,56")
_PALM = path("-30,-180 -48,-240 -40,-290 0,-298 42,-286 46,-236 28,-180")
_FINGERS = path("-32,-282 -50,-352 -11,-290 -16,-376 11,-290 17,-374 32,-282 47,-352 38,-224 84,-262")
_CUFF = path("-60,50 -58,-70 0,-82 58,-70 60,50 0,70")


class Look(NamedTuple):
    """What one person looks like, and the wall behind."""

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
    forearm: Part
    head: Part


@lru_cache(maxsize=2)
def draw_figure(look: Look, seed: int) -> Figure:
    """The person of a look. The same arguments give the same pixels."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    brush = Brush(*CANVAS)
    return Figure(_draw_body(look, brush, rng), _draw_forearm(look, brush), _draw_head(look, brush, rng))


def _draw_body(look: Look, brush: Brush, rng: np.random.Generator) -> Part:
    cloth, throat = brush.fill(curve(_TORSO)), brush.fill(curve(_NECK))
    wrinkles = 2.2 * brush.grain(rng, 9, 38) + 0.09 * brush.grain(rng, 1.2)
    shirt = lit(flat(look.shirt), cloth, 60) * (1 + wrinkles)[..., None]
    under_chin = soft(brush.ellipse(480, 425, 120, 90), 16)
    skin = lit(flat(look.skin), throat, 40) * (1 - 0.45 * under_chin)[..., None]
    rgb = np.array(shirt, np.float32)
    paint(rgb, skin, throat)
    paint(rgb, shirt * 0.72, brush.stroke(curve(_COLLAR, closed=False), 14), blur=2)
    for side in (-1, 1):
        seam = [(480 + side * 258, 600), (480 + side * 236, 690), (480 + side * 244, 900)]
        paint(rgb, shirt * 0.7, brush.stroke(curve(seam, closed=False), 7), blur=3)
    return Part(rgb, np.maximum(cloth, throat))


def _draw_head(look: Look, brush: Brush, rng: np.random.Generator) -> Part:
    face = brush.fill(curve(_FACE))
    ears = np.maximum(brush.ellipse(356, 278, 18, 42), brush.ellipse(604, 278, 18, 42))
    skull = np.maximum(face, ears)
    skin = flat(look.skin)
    rgb = np.asarray(lit(skin, skull, 55) * (1 + 0.12 * brush.grain(rng, 3))[..., None], np.float32)
    _draw_face(rgb, look, brush, face)

    hair = brush.fill(curve(_HAIR))
    strands = 1 + 1.6 * brush.grain(rng, 1.3, 9)
    sheen = soft(brush.ellipse(440, 88, 62, 16), 12)
    coat = lit(flat(look.hair), hair, 40) * strands[..., None] + 46 * sheen[..., None]
    paint(rgb, coat, hair)
    return Part(rgb, np.maximum(skull, hair))


def _draw_face(rgb: F32, look: Look, brush: Brush, face: F32) -> None:
    skin = flat(look.skin)
    dark = skin * flat((0.58, 0.50, 0.46))
    rosy = skin * flat((1.02, 0.82, 0.80))

    def tint(colour: F32, area: F32, blur: float, strength: float) -> None:
        paint(rgb, colour, area, blur, strength)

    for side in (-1, 1):
        x = 480 + side * 54
        tint(rosy, brush.ellipse(x + side * 12, 320, 34, 24), 14, 0.6)
        tint(dark, brush.ellipse(x, 244, 38, 22), 9, 0.7)
        tint(flat((236, 232, 226)), brush.ellipse(x, 252, 26, 12), 1, 1)
        tint(flat((70, 52, 38)), brush.ellipse(x, 251, 11.5, 11.5), 1, 1)
        tint(flat((14, 12, 12)), brush.ellipse(x, 251, 5.5, 5.5), 0.7, 1)
        tint(flat((255, 255, 255)), brush.ellipse(x - 4, 247, 2.6, 2.6), 0.7, 1)
        lid = curve([(x - 29, 254), (x - 12, 240), (x + 12, 240), (x + 29, 254)], closed=False)
        tint(dark * 0.55, brush.stroke(lid, 5), 1, 0.9)
        brow = curve([(x - 34, 219), (x, 209), (x + 34, 219)], closed=False)
        tint(flat(look.hair), brush.stroke(brow, 11), 2, 0.85)
        tint(dark * 0.7, brush.ellipse(480 + side * 13, 328, 7, 4), 2, 0.9)
    tint(dark, brush.stroke([(497, 250), (506, 312)], 12), 7, 0.55)
    tint(dark, brush.ellipse(480, 334, 30, 8), 5, 0.6)
    tint(skin * 1.18, brush.stroke([(477, 250), (476, 310)], 9), 5, 0.5)
    tint(flat((166, 84, 80)) * np.float32(np.mean(look.skin) / 178), brush.ellipse(480, 376, 40, 12), 2, 0.8)
    tint(dark * 0.5, brush.stroke(curve(_LIPS, closed=False), 4), 1, 0.9)
    tint(dark, brush.ellipse(480, 398, 28, 6), 5, 0.5)
    rim = np.clip(face - brush.ellipse(474, 255, 112, 185), 0, 1)
    tint(dark, rim, 14, 0.45)


def _draw_forearm(look: Look, brush: Brush) -> Part:
    """Raised, with the palm to the viewer; it turns about the elbow."""
    limb = np.maximum(brush.fill(curve(_FOREARM + ELBOW)), brush.fill(curve(_PALM + ELBOW)))
    for finger in (_FINGERS + ELBOW).reshape(-1, 2, 2):
        limb = np.maximum(limb, brush.stroke(finger, 24))
    cloth = brush.fill(curve(_CUFF + ELBOW))
    rgb = lit(flat(look.skin), limb, 18)
    paint(rgb, lit(flat(look.shirt), cloth, 30), cloth)
    return Part(rgb, np.maximum(limb, cloth))
