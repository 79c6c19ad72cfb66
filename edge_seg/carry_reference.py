"""What _carry.c computes, in NumPy: the readable form, and the one used where no compiler was."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.alike import TILE, Picture, box3, mean_of_alike, per_tile, spread
from edge_seg.types import F32, I16

Q = 16
"""Steps to a pixel."""
RADIUS = 2
"""Reach of the window."""
DIAMOND = tuple(
    (y, x, 1 / 32 if RADIUS in (abs(y), abs(x)) else 1 / 16)
    for y in range(-RADIUS, RADIUS + 1)
    for x in range(abs(y) - RADIUS, RADIUS - abs(y) + 1)
)
"""That window."""
SURE = np.float32(1 / 16)
"""Masks that differ by less count as equal."""
CALM = 3
"""Code values of luma up to which what did not move is the same."""
UNSEEN = np.float32(0.05)
"""Variance for each squared pixel that a source lies outside the picture: what enters was never seen."""


def carry(
    previous: Picture,
    current: Picture,
    steps: I16,
    residual: F32,
    block_px: int,
    probability: F32,
    variance: F32,
    out_probability: F32,
    out_variance: F32,
    like: float,
    chroma: float,
    exact: float,
    drift: float,
    misfit: float,
) -> None:
    """Moves (probability, variance) from the grid of `previous` to that of `current` along the flow.

    `steps`: its vectors in 1 / Q pixel, (block rows, block cols, 2).
    What differs from an element by `like` code values of luma, or by less luma and some chroma (whose squares
    count `chroma` times; 0: not at all) is not like it. An element whose luma is not found where its vector
    points (difference against `exact` code values) takes the mean of the elements around that place that
    look like it, instead. The variance grows by drift + misfit * (mean luma difference after the move)^2, and
    for sources outside the picture. Tiles in whose windows the mask is the same everywhere are only moved, and take
    the luma difference from the `residual` of the block in their middle; so do calm ones, which show what they
    showed before.
    """
    rows, cols = current[0].shape
    x, y = _sample_points(steps, block_px, rows, cols)
    moved = _bilinear(probability, x, y)
    own = [plane.astype(np.float32) for plane in current]
    source = [_bilinear(plane.astype(np.float32), x, y) for plane in previous]
    difference = np.abs(own[0] - source[0])
    alike = mean_of_alike(own, source, moved, like, chroma, DIAMOND)
    share = difference * difference
    share /= share + np.float32(exact * exact)
    busy = _windows_that_differ(moved) & ~_calm(difference, steps, block_px)
    mismatch = np.where(busy, box3(difference), _in_the_middle(residual, rows, cols, block_px))
    far = _outside(x, y, rows, cols)
    out_probability[:] = np.where(busy, moved + share * (alike - moved), moved)
    out_variance[:] = _nearest(variance, x, y) + UNSEEN * far * far
    out_variance += np.float32(drift) + np.float32(misfit) * mismatch * mismatch


def _windows_that_differ(moved: F32) -> NDArray[np.bool_]:
    """Per pixel: whether the mask differs anywhere in the windows of its tile."""
    window = np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)
    most = per_tile(np.maximum, np.asarray(cv2.dilate(moved, window), np.float32))
    least = per_tile(np.minimum, np.asarray(cv2.erode(moved, window), np.float32))
    return spread(most - least > SURE, moved.shape)


def _calm(difference: F32, steps: I16, block_px: int) -> NDArray[np.bool_]:
    """Per pixel: whether its tile shows what it showed before: none of its vectors moves, and its luma is the same."""
    rows, cols = difference.shape
    moves = steps.any(axis=-1)[_blocks(rows, cols, block_px)]
    most = per_tile(np.maximum, np.where(moves, np.float32(np.inf), difference))
    calm: NDArray[np.bool_] = spread(most <= CALM, (rows, cols))
    return calm


def _in_the_middle(blocks: F32, rows: int, cols: int, block_px: int) -> F32:
    """Per pixel: what belongs to the block in the middle of its tile."""
    y, x = (np.minimum(np.arange(0, side, TILE) + TILE // 2, side - 1) // block_px for side in (rows, cols))
    result: F32 = spread(blocks[y[:, None], x[None, :]], (rows, cols))
    return result


def _blocks(rows: int, cols: int, block_px: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """In which block each pixel is."""
    return np.arange(rows)[:, None] // block_px, np.arange(cols)[None, :] // block_px


def _outside(x: F32, y: F32, rows: int, cols: int) -> F32:
    """How many pixels the points lie outside the picture, both axes added."""
    result: F32 = np.abs(x - np.clip(x, 0, cols - 1)) + np.abs(y - np.clip(y, 0, rows - 1))
    return result


def _sample_points(steps: I16, block_px: int, rows: int, cols: int) -> tuple[F32, F32]:
    """Where each pixel stood: by the vector of its block, for the mean of two motions is neither."""
    own = steps[_blocks(rows, cols, block_px)].astype(np.float32) / Q
    x, y = np.arange(cols, dtype=np.float32), np.arange(rows, dtype=np.float32)
    return x + own[..., 0], y[:, None] + own[..., 1]


def _nearest(values: F32, x: F32, y: F32) -> F32:
    """`values` at the points next to (x, y), those outside moved to the rim."""
    rows, cols = values.shape
    at = (np.floor(axis + np.float32(0.5)).astype(np.intp) for axis in (y, x))
    top, left = (np.clip(axis, 0, side - 1) for axis, side in zip(at, (rows, cols), strict=True))
    result: F32 = values[top, left]
    return result


def _bilinear(values: F32, x: F32, y: F32) -> F32:
    """`values` at the points (x, y), those outside moved to the rim."""
    rows, cols = values.shape
    x = np.clip(x, 0, cols - 1)
    y = np.clip(y, 0, rows - 1)
    left = np.minimum(x.astype(np.intp), max(cols - 2, 0))
    top = np.minimum(y.astype(np.intp), max(rows - 2, 0))
    right = np.minimum(left + 1, cols - 1)
    bottom = np.minimum(top + 1, rows - 1)
    fx = x - left.astype(np.float32)
    fy = y - top.astype(np.float32)
    upper = values[top, left] + fx * (values[top, right] - values[top, left])
    lower = values[bottom, left] + fx * (values[bottom, right] - values[bottom, left])
    result: F32 = upper + fy * (lower - upper)
    return result
