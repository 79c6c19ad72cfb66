"""What edge_seg/_fusion.c computes, in NumPy: the readable form, and the one used where no compiler was.

Everything is on one grid of pixels, (rows, cols). A mask element is a probability x in [0, 1] with an error
variance P (in squared probability).
"""

from __future__ import annotations

import numpy as np

from edge_seg.types import F32, U8

RADIUS = 2
BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32)
"""Spatial weights of the 5x5 window along one axis; a Gaussian of sigma 1."""
SELF = np.float32(1e-3)
"""What an element counts for itself at least, where nothing around looks like it."""


def carry(
    previous: U8,
    current: U8,
    vectors: F32,
    block_px: int,
    probability: F32,
    variance: F32,
    luma_px: float,
    exact: float,
    drift: float,
    misfit: float,
) -> tuple[F32, F32]:
    """Moves (probability, variance) from the grid of `previous` to that of `current` along the vectors.

    An element whose luma is not found where its vector points (difference against `exact` code values) takes
    the mean of the elements around that place that look like it, instead. The variance grows by
    drift + misfit * (mean luma difference after the move)^2.
    """
    rows, cols = current.shape
    x, y = _sample_points(vectors, block_px, rows, cols)
    luma = current.astype(np.float32)
    moved_luma = _bilinear(previous.astype(np.float32), x, y)
    moved = _bilinear(probability, x, y)
    difference = np.abs(luma - moved_luma)
    alike = _mean_of_alike(luma, moved_luma, moved, luma_px)
    share = difference * difference
    share /= share + np.float32(exact * exact)
    carried = moved + share * (alike - moved)
    residual = _box3(difference)
    grown = _bilinear(variance, x, y) + np.float32(drift) + np.float32(misfit) * residual * residual
    return carried, grown


def update(
    luma: U8,
    probability: F32,
    variance: F32,
    measured: F32,
    measured_variance: F32,
    luma_px: float,
    repeat: float,
) -> tuple[F32, F32]:
    """One step of a scalar Kalman filter for each element, then smoothing along the edges of the luma.

    Smoothed is only where the two masks disagree (by more than about `repeat`, the mean over 3x3): what
    repeats itself stays as it is.
    """
    gain = variance / (variance + measured_variance)
    innovation = measured - probability
    fused = probability + gain * innovation
    pixels = luma.astype(np.float32)
    disagreement = _box3(np.abs(innovation))
    share = disagreement / (disagreement + np.float32(repeat))
    fused += share * (_mean_of_alike(pixels, pixels, fused, luma_px) - fused)
    return np.clip(fused, 0, 1), variance - gain * variance


def similarity(previous: U8, current: U8, vectors: F32, block_px: int) -> float:
    """How far `current` is `previous`, moved: the structure of SSIM (Wang et al., 2004) over the picture.

    One pixel of each block, taken where the mean vector of its neighbourhood points: single blocks find
    something that fits in any picture, neighbours do not find it in the same direction. Near 1 for the same
    scene, lower for another.
    """
    rows, cols = current.shape
    group = max(1, GROUP_PX // block_px)
    block_rows, block_cols = np.arange(vectors.shape[0]), np.arange(vectors.shape[1])
    sums = np.add.reduceat(vectors.astype(np.float64), block_rows[::group], axis=0)
    sums = np.add.reduceat(sums, block_cols[::group], axis=1)
    counts = np.outer(np.bincount(block_rows // group), np.bincount(block_cols // group))
    mean = (sums / counts[..., None])[block_rows // group][:, block_cols // group]
    y = np.minimum(block_rows * block_px + block_px // 2, rows - 1)[:, None]
    x = np.minimum(block_cols * block_px + block_px // 2, cols - 1)[None, :]
    px = np.clip(np.floor(x + mean[..., 0] + 0.5), 0, cols - 1).astype(np.intp)
    py = np.clip(np.floor(y + mean[..., 1] + 0.5), 0, rows - 1).astype(np.intp)
    a = current[y, x].astype(np.float64)
    b = previous[py, px].astype(np.float64)
    covariance = (a * b).mean() - a.mean() * b.mean()
    return float((2 * covariance + STRUCTURE_FLOOR) / (a.var() + b.var() + STRUCTURE_FLOOR))


GROUP_PX = 16
"""Side of the neighbourhood whose vectors are averaged, in pixels."""
STRUCTURE_FLOOR = 2 * 6.0**2
"""Twice the variance, in squared code values, below which a picture counts as flat."""


def _sample_points(vectors: F32, block_px: int, rows: int, cols: int) -> tuple[F32, F32]:
    """Where each pixel stood: block vectors interpolated bilinearly between the block centres."""
    y = np.arange(rows, dtype=np.float32)[:, None]
    x = np.arange(cols, dtype=np.float32)[None, :]
    scale = np.float32(1 / block_px)
    half = np.float32(0.5)
    grid_x, grid_y = np.broadcast_arrays((x + half) * scale - half, (y + half) * scale - half)
    dx = _bilinear(np.ascontiguousarray(vectors[..., 0]), grid_x, grid_y)
    dy = _bilinear(np.ascontiguousarray(vectors[..., 1]), grid_x, grid_y)
    return x + dx, y + dy


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


def _mean_of_alike(luma: F32, window_luma: F32, values: F32, luma_px: float) -> F32:
    """Joint bilateral filter (Petschnigg et al., 2004) with Tukey's biweight for the luma difference."""
    rows, cols = luma.shape
    padded_luma = np.pad(window_luma, RADIUS, mode="edge")
    padded = np.pad(values, RADIUS, mode="edge")
    total = SELF * values
    weights = np.full_like(values, SELF)
    scale = np.float32(1 / (luma_px * luma_px))
    for j in range(2 * RADIUS + 1):
        for i in range(2 * RADIUS + 1):
            at = np.s_[j : j + rows, i : i + cols]
            difference = luma - padded_luma[at]
            alike = np.maximum(np.float32(1) - difference * difference * scale, np.float32(0))
            weight = BINOMIAL[j] * BINOMIAL[i] / np.float32(256) * alike * alike
            total += weight * padded[at]
            weights += weight
    result: F32 = total / weights
    return result


def _box3(values: F32) -> F32:
    padded = np.pad(values, 1, mode="edge")
    rows, cols = values.shape
    columns = padded[:, :cols] + padded[:, 1 : cols + 1] + padded[:, 2:]
    result: F32 = (columns[:rows] + columns[1 : rows + 1] + columns[2:]) * np.float32(1 / 9)
    return result
