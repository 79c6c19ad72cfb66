"""The small picture that the model and the flow look at, made from the planes of the full one.

Halving by 2x2 means while a side is at least twice too long, then one bilinear step of a factor below two:
a mip chain (L. Williams, "Pyramidal Parametrics", SIGGRAPH 1983). It costs a tenth of an area resize in one
step and differs from it by less than the noise of a camera. The native kernel (_pyramid.c) does all steps in one
pass over the three planes, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from edge_seg import kernels
from edge_seg.types import I420, U8, Matrix


class Yuv444(NamedTuple):
    """A small picture with all three planes at one size, limited range."""

    y: U8
    """Shape: (height, width). It is the luma grid of the flow, too."""
    u: U8
    """Shape: (height, width)."""
    v: U8
    """Shape: (height, width)."""
    matrix: Matrix

    @property
    def width(self) -> int:
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        return int(self.y.shape[0])


def shrink(picture: I420, size: tuple[int, int]) -> Yuv444:
    """The whole `picture` at `size` (width, height), stretched to fit."""
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"a small picture needs at least 1x1 pixels, got {width}x{height}")
    small = _shrink(picture.planes, size)
    # By index: to unpack an array takes three microseconds more where the caches are cold.
    return Yuv444(small[0], small[1], small[2], picture.matrix)


def shrink_plane(plane: U8, size: tuple[int, int]) -> U8:
    """`plane` (shape: (rows, cols), uint8, any row stride) at `size` (width, height), in new memory."""
    small: U8 = _shrink((plane,), size)[0]
    return small


def _shrink(planes: tuple[U8, ...], size: tuple[int, int]) -> U8:
    """Shape: (planes, height, width)."""
    out: U8 = np.empty((len(planes), size[1], size[0]), np.uint8)
    left = (1 << len(planes)) - 1 if _native is None else _native(planes, out)
    if left:  # a side is odd, or the two do not go together
        for index, plane in enumerate(planes):
            if left >> index & 1:
                out[index] = shrink_plane_reference(plane, size)
    return out


def shrink_plane_reference(plane: U8, size: tuple[int, int]) -> U8:
    """What _pyramid.shrink computes, step by step, for planes of any size."""
    width, height = size
    rows, cols = plane.shape
    small = plane
    while cols >= 2 * width or rows >= 2 * height:
        next_cols = (cols + 1) // 2 if cols >= 2 * width else cols
        next_rows = (rows + 1) // 2 if rows >= 2 * height else rows
        # Bilinear at a factor of exactly two is the mean of two pixels, and close to it for an odd side;
        # only the 2x2 mean has a fast path of its own.
        exact = cols == 2 * next_cols and rows == 2 * next_rows
        method = cv2.INTER_AREA if exact else cv2.INTER_LINEAR
        small = _resize(small, (next_cols, next_rows), method)
        rows, cols = next_rows, next_cols
    if (cols, rows) != (width, height):
        return _resize(small, size, cv2.INTER_LINEAR)
    return small.copy() if small is plane else small


def _resize(plane: U8, size: tuple[int, int], method: int) -> U8:
    out: U8 = np.empty((size[1], size[0]), np.uint8)
    cv2.resize(plane, size, dst=out, interpolation=method)
    return out


_kernel = kernels.load("pyramid")
_native: Callable[[tuple[U8, ...], U8], int] | None = _kernel.shrink if _kernel else None
