#!/usr/bin/env python3
"""Draws background.jpg: an evening room, far out of focus. Usage: make-background.py OUT.jpg"""

from __future__ import annotations

import sys

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 1280, 720
Image = NDArray[np.float32]


def blurred(image: Image, sigma: float) -> Image:
    """Out of focus: a disc, not a Gaussian, is what a lens makes of a point."""
    radius = int(sigma * 2)
    disc = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    cv2.circle(disc, (radius, radius), radius, 1.0, -1, cv2.LINE_AA)
    return np.asarray(cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REPLICATE), np.float32)


def box(image: Image, left: float, top: float, right: float, bottom: float, rgb: tuple[float, ...]) -> None:
    corners = [(round(left * WIDTH), round(top * HEIGHT)), (round(right * WIDTH), round(bottom * HEIGHT))]
    cv2.rectangle(image, corners[0], corners[1], rgb, -1)


def glow(x: float, y: float, radius: float) -> Image:
    """Light that falls off around a lamp at (x, y), all in shares of the picture's width."""
    columns = (np.arange(WIDTH, dtype=np.float32) / WIDTH - x)[None, :]
    rows = ((np.arange(HEIGHT, dtype=np.float32) - y * HEIGHT) / WIDTH)[:, None]
    return np.asarray(np.exp(-(columns**2 + rows**2) / radius**2), np.float32)[..., None]


def draw() -> Image:
    """Shape: (HEIGHT, WIDTH, 3), float32, linear light, RGB."""
    rng = np.random.Generator(np.random.PCG64(7))
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    room = np.array((0.20, 0.17, 0.15), np.float32) * (1.15 - 0.5 * down) * np.ones((1, WIDTH, 1), np.float32)

    # A tall window on the left, dusk behind it, with the lights of a town.
    sky = (
        np.array((0.24, 0.36, 0.55), np.float32) * (1.2 - 0.9 * down)
        + np.array((0.30, 0.14, 0.06), np.float32) * down
    )
    pane = np.zeros((HEIGHT, WIDTH, 1), np.float32)
    box(pane[..., 0], 0.05, 0.0, 0.37, 0.74, (1.0,))
    room = room * (1 - pane) + sky * pane
    for x in (0.05, 0.205, 0.362):
        box(room, x, 0.0, x + 0.012, 0.75, (0.10, 0.085, 0.075))
    box(room, 0.03, 0.735, 0.39, 0.765, (0.30, 0.25, 0.21))

    # Shelves on the right.
    for top in (0.16, 0.40, 0.64):
        left = 0.70
        while left < 0.95:
            wide, tall = rng.uniform(0.010, 0.026), rng.uniform(0.09, 0.16)
            shade = np.array((0.30, 0.20, 0.13)) * rng.uniform(0.3, 1.5, 3) * rng.uniform(0.5, 1.2)
            box(room, left, top + 0.17 - tall, left + wide, top + 0.17, tuple(shade.tolist()))
            left += wide + (0.05 if rng.random() < 0.18 else 0.003)
        box(room, 0.68, top + 0.17, 0.98, top + 0.187, (0.17, 0.105, 0.06))

    # Nothing in the middle: somebody stands there, and what showed beside them would look like a fringe.
    box(room, 0.0, 0.90, 1.0, 1.0, (0.10, 0.065, 0.045))
    room = blurred(room, 9)

    # Points of light stay discs: the brighter ones only, as a lens shows them.
    for _ in range(60):
        x, y = int(rng.uniform(0.07, 0.35) * WIDTH), int(rng.uniform(0.40, 0.70) * HEIGHT)
        colour = np.array(((1.0, 0.62, 0.25), (1.0, 0.80, 0.50), (0.55, 0.75, 1.0))[rng.integers(3)])
        disc = np.zeros((HEIGHT, WIDTH), np.float32)
        cv2.circle(disc, (x, y), int(rng.uniform(9, 16)), 1.0, -1, cv2.LINE_AA)
        room += cv2.GaussianBlur(disc, (0, 0), 1.5)[..., None] * (colour * rng.uniform(0.05, 0.32)).astype(
            np.float32
        )

    # A lamp on the shelf, and what it does to the wall.
    room *= 1 + 2.2 * glow(0.60, 0.30, 0.26)
    room += np.array((0.42, 0.25, 0.11), np.float32) * glow(0.60, 0.28, 0.20)
    shade_of_lamp = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.fillPoly(shade_of_lamp, [np.array([(735, 150), (800, 150), (830, 235), (705, 235)], np.int32)], 1.0)
    room += blurred(shade_of_lamp, 8)[..., None] * np.array((0.62, 0.42, 0.22), np.float32)
    vignette = 1 - 0.30 * (1 - glow(0.5, 0.45, 0.62))
    return np.asarray(room * vignette, np.float32)


def main() -> None:
    rng = np.random.Generator(np.random.PCG64(8))
    linear = np.clip(draw() * 0.8, 0, None)
    filmic = linear / (1 + 0.35 * linear)  # lamps fade to white instead of clipping
    encoded = 255 * np.clip(filmic, 0, 1) ** (1 / 2.2)
    encoded += rng.normal(0, 1.2, encoded.shape)  # against banding
    cv2.imwrite(
        sys.argv[1], np.clip(encoded, 0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90]
    )


if __name__ == "__main__":
    main()
