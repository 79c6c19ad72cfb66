"""Drawn parts as I420 sprites that move by fractions of a pixel, turn, and are blended into a picture."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, floor, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.colour import rgb_to_yuv
from edge_seg.types import F32, I420, U8, Matrix

_RIM = 2
"""Transparent pixels around a sprite: interpolation fades out in them."""


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """An image with transparency. Colours are multiplied by alpha, so that they can be interpolated."""

    luma: tuple[U8, U8]
    """Luma x alpha, and alpha. Shape of each: (height, width), both even."""
    chroma: tuple[U8, U8, U8]
    """U x alpha, V x alpha, and alpha. Shape of each: (height / 2, width / 2)."""
    left: float
    """Where the sprite stands in the picture when it is not moved, in pixels."""
    top: float
    pivot: tuple[float, float]
    """What it turns about, (x, y) in pixels of the picture when it is not moved."""

    def blend_into(self, picture: I420, behind: U8, x: float, y: float, degrees: float) -> None:
        """Draws the sprite, turned clockwise and then moved by (x, y) pixels.

        `behind` (shape: (height, width), uint8) is how much still shows of what stands behind all sprites.
        """
        turned = _rotation(degrees, self.pivot, (x, y)) @ _translation(self.left, self.top)
        luma, alpha = self.luma
        area, patch = _transform(alpha, turned, behind.shape)
        kept = cv2.bitwise_not(patch)
        _multiply(behind[area], kept)
        _blend(picture.y[area], kept, _transform(luma, turned, behind.shape)[1])

        # Chroma samples stand in the middle of 2 x 2 luma samples: x_luma = 2 * x_chroma + 0.5.
        to_luma = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
        turned = np.linalg.inv(to_luma) @ turned @ to_luma
        u, v, alpha = self.chroma
        area, patch = _transform(alpha, turned, picture.u.shape)
        kept = cv2.bitwise_not(patch)
        for plane, image in ((picture.u, u), (picture.v, v)):
            _blend(plane[area], kept, _transform(image, turned, plane.shape)[1])


def make_sprite(
    rgb: F32, alpha: F32, scale: float, origin: tuple[float, float], pivot: tuple[float, float]
) -> Sprite:
    """A sprite from a canvas. `origin` is where the canvas' corner stands in the picture; `pivot` is on the
    canvas. Shapes: rgb (height, width, 3), 0 to 255; alpha (height, width), 0 to 1."""
    rows, cols = np.nonzero(alpha)
    x0, x1, y0, y1 = int(cols.min()), int(cols.max()) + 1, int(rows.min()), int(rows.max()) + 1
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    right, bottom = _RIM + size[0] % 2, _RIM + size[1] % 2
    sides = (_RIM, bottom, _RIM, right)
    colour = cv2.copyMakeBorder(_resize(rgb[y0:y1, x0:x1], size, method), *sides, cv2.BORDER_REPLICATE)
    cover = cv2.copyMakeBorder(_resize(alpha[y0:y1, x0:x1], size, method), *sides, cv2.BORDER_CONSTANT)
    opacity = np.asarray(cover, np.float32)
    y, u, v = np.moveaxis(rgb_to_yuv(np.asarray(colour, np.float32), Matrix.BT709), -1, 0)
    half = (opacity.shape[1] // 2, opacity.shape[0] // 2)
    small = [_to_u8(_resize(plane * opacity, half, cv2.INTER_AREA)) for plane in (u, v)]
    return Sprite(
        luma=(_to_u8(y * opacity), _to_u8(opacity * 255)),
        chroma=(small[0], small[1], _to_u8(_resize(opacity, half, cv2.INTER_AREA) * 255)),
        left=origin[0] + x0 * scale - _RIM,
        top=origin[1] + y0 * scale - _RIM,
        pivot=(origin[0] + pivot[0] * scale, origin[1] + pivot[1] * scale),
    )


def to_i420(rgb: F32) -> I420:
    """An opaque picture in BT.709. Shape: (height, width, 3), 0 to 255."""
    height, width = rgb.shape[:2]
    picture = I420.allocate(width, height, Matrix.BT709)
    even = cv2.copyMakeBorder(rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    y, u, v = np.moveaxis(rgb_to_yuv(np.asarray(even, np.float32), Matrix.BT709), -1, 0)
    picture.y[...] = _to_u8(y[:height, :width])
    for plane, full in ((picture.u, u), (picture.v, v)):
        plane[...] = _to_u8(_resize(full, (plane.shape[1], plane.shape[0]), cv2.INTER_AREA))
    return picture


def _translation(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _rotation(degrees: float, pivot: tuple[float, float], by: tuple[float, float]) -> NDArray[np.float64]:
    c, s = cos(radians(degrees)), sin(radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    px, py = pivot
    moved: NDArray[np.float64] = _translation(px + by[0], py + by[1]) @ turn @ _translation(-px, -py)
    return moved


def _transform(
    image: U8, to_picture: NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], U8]:
    """The area of a picture of this shape that an image falls on, and the image's pixels in it."""
    height, width = image.shape
    if to_picture[0, 1] == 0:
        return _shift(image, float(to_picture[0, 2]), float(to_picture[1, 2]), shape)
    corners = to_picture @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    x0, y0 = (max(0, floor(side)) for side in corners[:2].min(axis=1))
    x1 = max(x0, min(shape[1], ceil(corners[0].max())))
    y1 = max(y0, min(shape[0], ceil(corners[1].max())))
    area = (slice(y0, y1), slice(x0, x1))
    if x1 == x0 or y1 == y0:
        return area, np.empty((y1 - y0, x1 - x0), np.uint8)
    matrix = _translation(-x0, -y0) @ to_picture
    patch = cv2.warpAffine(image, matrix[:2], (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    return area, np.asarray(patch, np.uint8)


def _shift(image: U8, dx: float, dy: float, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], U8]:
    """As `_transform`, for a mere translation: bilinear interpolation by two weighted sums, which costs a
    fifth of a warp."""
    height, width = image.shape
    x, y = floor(dx), floor(dy)
    x0, y0 = max(0, x + 1), max(0, y + 1)
    x1, y1 = max(x0, min(shape[1], x + width)), max(y0, min(shape[0], y + height))
    area = (slice(y0, y1), slice(x0, x1))
    if x1 == x0 or y1 == y0:
        return area, np.empty((y1 - y0, x1 - x0), np.uint8)
    left = image[y0 - y - 1 : y1 - y, x0 - x - 1 : x1 - x - 1]
    right = image[y0 - y - 1 : y1 - y, x0 - x : x1 - x]
    across = cv2.addWeighted(right, 1 - (dx - x), left, dx - x, 0)
    down = cv2.addWeighted(across[1:], 1 - (dy - y), across[:-1], dy - y, 0)
    return area, np.asarray(down, np.uint8)


def _multiply(plane: U8, kept: U8 | cv2.typing.MatLike) -> None:
    if plane.size:
        cv2.multiply(plane, np.asarray(kept, np.uint8), dst=plane, scale=1 / 255)


def _blend(plane: U8, kept: U8 | cv2.typing.MatLike, image: U8) -> None:
    """plane = plane * kept / 255 + image, in place."""
    if plane.size:
        _multiply(plane, kept)
        cv2.add(plane, image, dst=plane)


def _resize(image: F32, size: tuple[int, int], method: int) -> F32:
    return np.asarray(cv2.resize(image, size, interpolation=method), np.float32)


def _to_u8(values: F32) -> U8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
