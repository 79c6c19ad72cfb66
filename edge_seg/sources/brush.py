"""Antialiased areas, soft shading and textures: what the synthetic person and room are drawn with."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_seg.types import F32

RGB = tuple[float, float, float]
Points = NDArray[np.float64]
"""Shape: (n, 2), float64, (x, y) in pixels."""

_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Brush:
    """Draws areas of one size: shape (height, width), float32 in [0, 1]."""

    width: int
    height: int

    def fill(self, outline: ArrayLike) -> F32:
        """The inside of an outline."""
        area = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(area, [_fixed_point(outline)], (255,), cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        return area.astype(np.float32) / 255

    def stroke(self, line: ArrayLike, thickness: float) -> F32:
        """A line with round ends."""
        area = np.zeros((self.height, self.width), np.uint8)
        cv2.polylines(
            area, [_fixed_point(line)], False, (255,), max(1, round(thickness)), cv2.LINE_AA, _SUBPIXEL_BITS
        )
        return area.astype(np.float32) / 255

    def box(self, left: float, top: float, right: float, bottom: float) -> F32:
        """A rectangle, its sides in shares of width and height."""
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
        return self.fill(corners * (self.width, self.height))

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> F32:
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return self.fill(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1))

    def grain(self, rng: np.random.Generator, sigma_x: float, sigma_y: float = 0) -> F32:
        """Noise of mean zero, smoothed over so many pixels; the smoother, the weaker."""
        factor = max(1, int(min(sigma_x, sigma_y or sigma_x) / 3))
        noise = rng.standard_normal((self.height // factor, self.width // factor), np.float32) / factor
        return _blur_small(noise, (self.width, self.height), sigma_x / factor, sigma_y / factor)


def soft(area: F32, sigma: float) -> F32:
    """An area with blurred edges. Shape: (height, width)."""
    factor = max(1, int(sigma / 4))  # a wide blur loses nothing by being made small, and most of its cost
    height, width = area.shape
    size = (max(1, width // factor), max(1, height // factor))
    small = cv2.resize(area, size, interpolation=cv2.INTER_AREA) if factor > 1 else area
    return _blur_small(np.asarray(small, np.float32), (width, height), sigma / factor)


def paint(image: F32, colour: F32, area: F32, blur: float = 0, strength: float = 1) -> None:
    """Puts a colour on a part of an image, in place. Shapes: image (height, width, 3), colour the same or what
    broadcasts to it, area (height, width). `blur` softens the area's edge by a Gaussian of that sigma."""
    x, y, width, height = cv2.boundingRect((area > 0).astype(np.uint8))
    spare = int(4 * blur) + 1
    rows = slice(max(0, y - spare), y + height + spare)
    cols = slice(max(0, x - spare), x + width + spare)
    alpha = area[rows, cols]
    if blur:
        alpha = soft(alpha, blur)
    weight = strength * alpha[..., None]
    above = colour[rows if colour.shape[0] > 1 else slice(None), cols if colour.shape[1] > 1 else slice(None)]
    part = image[rows, cols]
    part += (above - part) * weight


def flat(colour: RGB) -> F32:
    """A colour that broadcasts to any area. Shape: (1, 1, 3)."""
    return np.array(colour, np.float32).reshape(1, 1, 3)


def lit(colour: F32, shape: F32, depth: float) -> F32:
    """Colour on a form that bulges towards the viewer, with light from the upper left."""
    bulge = soft(soft(shape, depth) * shape, depth / 3)
    slope_x = cv2.Sobel(bulge, cv2.CV_32F, 1, 0) * (depth / 8)
    slope_y = cv2.Sobel(bulge, cv2.CV_32F, 0, 1) * (depth / 8)
    light = np.clip(1 + 0.55 * slope_x + 0.35 * slope_y + 0.12 * (bulge - 0.8), 0.35, 1.25)
    return np.asarray(colour * light[..., None], np.float32)


def path(text: str) -> Points:
    """Points written as in an SVG path: "x,y x,y ..."."""
    return np.array([pair.split(",") for pair in text.split()], np.float64)


def curve(points: ArrayLike, closed: bool = True) -> Points:
    """A smooth line through the points: a uniform Catmull-Rom spline (E. Catmull and R. Rom, 1974)."""
    p = np.asarray(points, np.float64)
    padded = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate(pieces if closed else [*pieces, p[-1:]])


def _fixed_point(points: ArrayLike) -> NDArray[np.int32]:
    scaled: NDArray[np.int32] = np.rint(np.asarray(points, np.float64) * (1 << _SUBPIXEL_BITS)).astype(
        np.int32
    )
    return scaled


def _blur_small(image: F32, size: tuple[int, int], sigma_x: float, sigma_y: float = 0) -> F32:
    """Blurs an image and brings it to `size` (width, height)."""
    blurred = cv2.GaussianBlur(image, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
    if image.shape != size[::-1]:
        blurred = cv2.resize(blurred, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(blurred, np.float32)
