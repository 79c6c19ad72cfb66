"""The room behind the synthetic person."""

from __future__ import annotations

import cv2
import numpy as np

from edge_seg.sources.brush import RGB, Brush, flat, paint
from edge_seg.types import F32, U8

WIDTH = 1280
"""Of the canvas, in pixels."""


def draw_room(wall: RGB, width: int, height: int, seed: int) -> U8:
    """A room out of focus: wall, window, shelf with books, a plant. Shape: (height, width, 3), uint8, RGB."""
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    brush = Brush(WIDTH, round(WIDTH * height / width))
    x = np.linspace(0, 1, brush.width, dtype=np.float32)[None, :, None]
    y = np.linspace(0, 1, brush.height, dtype=np.float32)[:, None, None]
    room = np.asarray(
        flat(wall) * (1.08 - 0.28 * x - 0.18 * y) + 22 * brush.grain(rng, 6)[..., None], np.float32
    )

    paint(room, flat((232, 240, 248)) * (1.02 - 0.25 * y), brush.box(0.02, 0.05, 0.21, 0.62))
    for left, top, right, bottom in ((0.11, 0.05, 0.118, 0.62), (0.02, 0.32, 0.21, 0.335)):
        paint(room, flat((150, 140, 128)), brush.box(left, top, right, bottom))
    paint(room, flat((104, 76, 54)) * (1.1 - 0.4 * y), brush.box(0.74, 0.08, 0.99, 0.9))
    for shelf in range(4):
        _draw_shelf(room, brush, rng, top=0.1 + shelf * 0.2)
    paint(room, flat((120, 84, 60)), brush.box(0.0, 0.86, 1.0, 1.0))
    _draw_plant(room, brush, rng)

    room = np.asarray(cv2.GaussianBlur(room, (0, 0), 2.2), np.float32)  # the focus is on the person
    resized = cv2.resize(np.clip(room, 0, 255), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized).astype(np.uint8)


def _draw_shelf(room: F32, brush: Brush, rng: np.random.Generator, top: float) -> None:
    bottom = top + 0.175
    paint(room, flat((58, 42, 32)), brush.box(0.75, top, 0.98, bottom))
    left = 0.755
    while left < 0.955:
        thick, tall = rng.uniform(0.009, 0.022), rng.uniform(0.09, 0.155)
        red, green, blue = rng.uniform(50, 190, 3)
        colour = flat((red, green, blue))
        paint(room, colour, brush.box(left, bottom - tall, left + thick, bottom))
        shadow = brush.box(left + 0.7 * thick, bottom - tall, left + thick, bottom)
        paint(room, colour * 0.7, shadow, blur=2)
        left += thick + (rng.uniform(0.02, 0.05) if rng.random() < 0.2 else 0.002)


def _draw_plant(room: F32, brush: Brush, rng: np.random.Generator) -> None:
    root = np.array((0.29 * brush.width, 0.76 * brush.height))
    for _ in range(26):
        angle = rng.uniform(-2.6, -0.5)
        reach = np.array((0.075 * brush.width, 0.24 * brush.height))
        tip = root + reach * (np.cos(angle), np.sin(angle))
        leaf = brush.stroke([root, tip], rng.uniform(6, 16))
        paint(room, flat((48, 104, 52)) * np.float32(rng.uniform(0.6, 1.3)), leaf)
    paint(room, flat((170, 92, 62)), brush.box(0.265, 0.74, 0.315, 0.88))
