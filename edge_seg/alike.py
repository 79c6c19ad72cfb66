"""What the kernels of fusion have in common, in NumPy: means of what has the same colour, and tiles.

Everything is on one grid of pixels, (rows, cols). A mask element is a probability x in [0, 1] with an error
variance P (in squared probability).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_seg.types import F32, U8

Picture = tuple[U8, U8, U8]
"""Luma and chroma, each (rows, cols), uint8. Without chroma: any planes, and `chroma` = 0."""
Taps = tuple[tuple[int, int, float], ...]
"""A window: (down, right, weight)."""

TILE = 4
"""Side of the tiles that are treated alike, in pixels."""
SELF = np.float32(1e-3)
"""What an element counts for itself at least, where nothing around looks like it."""


def mean_of_alike(
    own: list[F32], window: list[F32], values: F32, like: float, chroma: float, taps: Taps
) -> F32:
    """Joint bilateral filter (Petschnigg et al., 2004) with Tukey's biweight for the difference of colour."""
    rows, cols = values.shape
    reach = max(max(abs(y), abs(x)) for y, x, _ in taps)
    padded_window = [np.pad(plane, reach, mode="edge") for plane in window]
    padded = np.pad(values, reach, mode="edge")
    total = SELF * values
    weights = np.full_like(values, SELF)
    luma_scale = np.float32(1 / (like * like))
    chroma_scale = np.float32(chroma) * luma_scale
    for down, right, share in taps:
        at = np.s_[reach + down : reach + down + rows, reach + right : reach + right + cols]
        y, u, v = ((a - b[at]) ** 2 for a, b in zip(own, padded_window, strict=True))
        alike = np.maximum(np.float32(1) - y * luma_scale - (u + v) * chroma_scale, np.float32(0))
        weight = alike * alike * np.float32(share)
        total += weight * padded[at]
        weights += weight
    result: F32 = total / weights
    return result


def box3(values: F32) -> F32:
    """The mean of 3x3, the outermost repeated."""
    padded = np.pad(values, 1, mode="edge")
    rows, cols = values.shape
    columns = padded[:, :cols] + padded[:, 1 : cols + 1] + padded[:, 2:]
    result: F32 = (columns[:rows] + columns[1 : rows + 1] + columns[2:]) * np.float32(1 / 9)
    return result


def per_tile(extreme: np.ufunc, values: F32) -> F32:
    """The least or the greatest of each tile."""
    rows, cols = (np.arange(0, side, TILE) for side in values.shape)
    result: F32 = extreme.reduceat(extreme.reduceat(values, rows, axis=0), cols, axis=1)
    return result


def spread(tiles: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A value for each tile -> for each pixel."""
    return tiles.repeat(TILE, 0).repeat(TILE, 1)[: shape[0], : shape[1]]
