"""Whether a frame goes on where the one before ended."""

from __future__ import annotations

import cv2
import numpy as np

from edge_seg.types import F32, U8, BlockFlow

RESIDUAL = 0.15
"""Flow whose mean residual is less than this share of the luma's standard deviation joins one scene."""
NOISE = 3.0
"""Standard deviation that is added to the luma's, in code values."""
BELIEVED = 16
"""For so many frames half of a standard deviation is believed to be less than what it is."""
GROUP_PX = 16
"""Side of the neighbourhood whose vectors are averaged, in pixels."""
STRUCTURE_FLOOR = 2 * 6.0**2
"""Twice the variance, in squared code values, below which a picture counts as flat."""


class Scene:
    """What is known of the scene that the frames show."""

    def __init__(self) -> None:
        self._deviation = 0.0
        self._believed = 0
        """For how many more frames."""

    def goes_on(self, previous: U8, current: U8, flow: BlockFlow, least_similarity: float) -> bool:
        """Whether `current` belongs to the scene of `previous`, to which the flow leads.

        Both: (rows, cols), uint8 luma. Noise lowers the similarity, a change of light raises the residual; a new
        scene does both.
        """
        residual = flow.mean_residual
        self._believed -= 1
        if self._believed > 0 and residual < RESIDUAL * (self._deviation / 2 + NOISE):
            return True
        self._deviation = float(cv2.meanStdDev(current[::4])[1][0, 0])  # every fourth row: half the time
        self._believed = BELIEVED
        if residual < RESIDUAL * (self._deviation + NOISE):
            return True
        return max(similarity(previous, current, flow.vectors, flow.block_px), 0.0) >= least_similarity


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
