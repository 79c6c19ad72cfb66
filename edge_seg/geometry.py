"""Crop, rotate and mirror a picture within the one copy that every source makes of it anyway.

A source copies each picture once, out of the buffer of its driver or decoder, which it has to give back. Laid out
differently, the same copy crops (it reads less), mirrors and turns; so no stage behind it knows of any of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
from annotated_types import Interval

from edge_seg.types import I420, U8

Rotation = Literal[0, 90, 180, 270]
Share = Annotated[float, Interval(ge=0.0, le=0.9)]

_STRIP = 64
"""Rows that are transposed at a time."""


@dataclass(frozen=True)
class Geometry:
    """What to do to the camera's picture, in this order: crop, rotate, mirror."""

    crop_left: Share = 0.0
    """Shares of the picture's width and height, as the camera delivers it, that are cut off."""
    crop_right: Share = 0.0
    crop_top: Share = 0.0
    crop_bottom: Share = 0.0
    rotate: Rotation = 0
    """Degrees, clockwise."""
    mirror: bool = False
    """Left for right, as people know themselves from a looking glass."""


WHOLE = Geometry()
"""Nothing is changed."""


def cropped(geometry: Geometry) -> bool:
    return any((geometry.crop_left, geometry.crop_right, geometry.crop_top, geometry.crop_bottom))


def output_size(width: int, height: int, geometry: Geometry) -> tuple[int, int]:
    """(width, height) of what `place` makes of a picture of this size."""
    left, top, right, bottom = _window(width, height, geometry)
    size = right - left, bottom - top
    return size[::-1] if geometry.rotate in (90, 270) else size


def place(planes: tuple[U8, U8, U8], geometry: Geometry, out: I420) -> None:
    """Copies a picture into `out`, whose size is `output_size`.

    planes: luma of shape (height, width), both chroma of ((height + 1) // 2, (width + 1) // 2), uint8, with any
    row stride. They must not share memory with `out`.
    """
    height, width = planes[0].shape
    if (out.width, out.height) != output_size(width, height, geometry):
        raise ValueError(
            f"out: expected {output_size(width, height, geometry)}, got {out.width}x{out.height}"
        )
    left, top, right, bottom = _window(width, height, geometry)
    for index, (plane, target) in enumerate(zip(planes, out.planes, strict=True)):
        half = 1 if index == 0 else 2
        # The window starts at even columns and rows, so that it takes whole chroma samples.
        seen = plane[top // half : -(-bottom // half), left // half : -(-right // half)]
        _turn(seen, target, geometry)


def placed(picture: I420, geometry: Geometry) -> I420:
    """`picture` itself where nothing is to be done to it, else a new one. For sources that draw or convert theirs."""
    if geometry == WHOLE:
        return picture
    out = I420.allocate(*output_size(picture.width, picture.height, geometry), picture.matrix)
    place(picture.planes, geometry, out)
    return out


def placed_plane(plane: U8, geometry: Geometry) -> U8:
    """The same for a plane of the picture's size alone, such as a mask."""
    height, width = plane.shape
    left, top, right, bottom = _window(width, height, geometry)
    out = np.empty(output_size(width, height, geometry)[::-1], np.uint8)
    _turn(plane[top:bottom, left:right], out, geometry)
    return out


def _window(width: int, height: int, geometry: Geometry) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is left of the picture.

    Of even size as soon as anything is changed, so that chroma samples stay with their luma; and never empty.
    """
    if geometry == WHOLE:
        return 0, 0, width, height
    left, right = _cut(width, geometry.crop_left, geometry.crop_right)
    top, bottom = _cut(height, geometry.crop_top, geometry.crop_bottom)
    return left, top, right, bottom


def _cut(size: int, before: float, after: float) -> tuple[int, int]:
    if size < 2:
        return 0, size
    start = min(round(size * before) // 2 * 2, size // 2 * 2 - 2)
    stop = size - round(size * after)
    return start, max(start + (stop - start) // 2 * 2, start + 2)


def _turn(plane: U8, target: U8, geometry: Geometry) -> None:
    """Rotates, then mirrors."""
    rotate, mirror = geometry.rotate, geometry.mirror
    if rotate == 0 and not mirror:
        np.copyto(target, plane)
    elif rotate in (0, 180):
        cv2.flip(plane, {(0, True): 1, (180, False): -1, (180, True): 0}[rotate, mirror], dst=target)
    else:
        # A clockwise turn is a transposition, then left for right; the other one, then top for bottom.
        _transpose(plane, target, across=(rotate == 90) != mirror, down=rotate == 270)


def _transpose(plane: U8, target: U8, across: bool, down: bool) -> None:
    """Transposes, then flips left for right (`across`) and top for bottom (`down`), by strips that fit a cache."""
    rows = plane.shape[0]
    for start in range(0, rows, _STRIP):
        stop = min(start + _STRIP, rows)
        strip = cv2.transpose(plane[start:stop])
        if across or down:
            strip = cv2.flip(strip, -1 if across and down else 1 if across else 0)
        np.copyto(target[:, rows - stop : rows - start] if across else target[:, start:stop], strip)
