"""From the coarse mask to an alpha that follows the edges of the picture.

Around every node of the mask's grid the mask is regressed on colour: the guided filter (He, Sun, Tang,
"Guided Image Filtering", TPAMI 2013) with all three planes as guide, computed on the coarse grid and applied
to the full picture ("Fast Guided Filter", arXiv:1505.00996). Three things are added to it, because the filter
blurs, leaks and is fooled just where the model is unsure:

- Nodes weigh in the regression by how certain the model is of them, |2p - 1|. What person and what room look
  like is learnt from where the model knows, and said about where it does not.
- The fit replaces the mask only where the window holds much uncertainty. A mask with crisp edges, a true one,
  is left alone, and so is whatever is far from an edge: texture there cannot leak.
- Ridge regression and the averaging of windows make edges softer than they are; a fixed factor about one half
  takes that back. The threshold does not move.

The person's colour near the edge falls out of the same sums (blur fusion: Forte, "Approximate Fast Foreground
Colour Estimation", ICIP 2021); the composite takes the old background out of half-transparent pixels with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
from annotated_types import Interval

from edge_seg.composite import alpha_256
from edge_seg.pyramid import Yuv444
from edge_seg.types import F32, I420, U8, Alpha, Mask

Quality = Literal["fast", "balanced", "best"]

LEVEL = 1 / 64
"""Probability that counts as none, and its like at the other end: an int8 model never says 0. Without this
most of a picture would be blended, and a hint of the room be seen everywhere."""
_CHROMA_SCALE = 2.0
"""Chroma weighs double: it spans half the range of luma, and has half its noise."""
_WEIGHT_FLOOR = 0.05
_UNCERTAINTY = (0.05, 0.25)
"""Mean of 4p(1-p) in the window where the fit starts to replace the mask, and where it has replaced it."""
_SHARPNESS = 1.25
_STEEPEST = 6.0
"""Largest gain of a fit. A steeper one would turn the camera's noise into a flickering edge."""
_NEGLIGIBLE = 1 / 32
"""Alpha that is none, where all around is no more: it would cost time and show a hint of the room."""
_PASSES = {"balanced": 1, "best": 2}


@dataclass(frozen=True)
class MatteSettings:
    """How the edge of the person is made.

    `fast` upsamples the mask; `balanced` fits it to the picture; `best` does so twice, the second time to
    what the first has found.
    """

    quality: Quality = "balanced"
    radius: Annotated[int, Interval(ge=1, le=16)] = 4
    """Of the window in which mask and colour are compared, in pixels of the mask."""
    smoothing: Annotated[int, Interval(ge=0, le=16)] = 2
    """Radius over which neighbouring fits are averaged, in pixels of the mask."""
    epsilon: Annotated[float, Interval(ge=1e-6, le=1.0)] = 1e-4
    """Variance of the colour (in [0, 1]) that is noise: the fit does not follow what is fainter."""


Kernel = Callable[..., None]


def refine(mask: Mask, small: Yuv444, settings: MatteSettings) -> Alpha:
    """An alpha for the frame that `mask` is of. `small` is that frame at the mask's size (pyramid.shrink)."""
    shape = mask.probability.shape
    if small.y.shape != shape:
        raise ValueError(f"small: expected the mask's shape {shape}, got {small.y.shape}")
    if settings.quality == "fast":
        return Alpha(offset=_drawn_out(mask.probability, LEVEL), seq=mask.seq)
    gain, offset = np.empty((3, *shape), np.float32), np.empty(shape, np.float32)
    foreground = np.zeros((3, *shape), np.uint8)
    kernel(
        mask.probability, small.y, small.u, small.v, gain, offset, foreground,
        settings.radius, settings.smoothing, _PASSES[settings.quality], settings.epsilon, _CHROMA_SCALE,
        _WEIGHT_FLOOR, *_UNCERTAINTY, _SHARPNESS, LEVEL, _STEEPEST, _NEGLIGIBLE,
    )  # fmt: skip
    return Alpha(offset=offset, seq=mask.seq, gain=gain, foreground=foreground)


def render(alpha: Alpha, picture: I420) -> U8:
    """Alpha at full resolution, for tests and measurements. Shape: (height, width), uint8, 0 to 255."""
    full = alpha_256(alpha.offset, alpha.gain, picture.planes)
    return ((full * 255 + 128) >> 8).astype(np.uint8)


def _drawn_out(probability: F32, level: float) -> F32:
    """From [level, 1 - level] to [0, 1], and beyond for what is outside."""
    scale = 1 / (1 - 2 * level)
    scaled = np.multiply(probability, scale, dtype=np.float32)
    return np.subtract(scaled, level * scale, out=scaled)


def refine_reference(
    mask: F32, y: U8, u: U8, v: U8, gain: F32, offset: F32, foreground: U8,
    radius: int, smoothing: int, passes: int, epsilon: float, chroma_scale: float,
    weight_floor: float, low: float, high: float, sharpness: float, level: float, steepest: float, negligible: float,
) -> None:  # fmt: skip
    """What _matte.refine computes, in NumPy and OpenCV, over the whole grid instead of the band only."""

    def window_sum(values: F32, reach: int = radius) -> F32:
        size = (2 * reach + 1, 2 * reach + 1)
        summed = cv2.boxFilter(values, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(summed, np.float32)

    scales = np.array([1, chroma_scale, chroma_scale], np.float32)
    guide = [(plane.astype(np.float32) - 128) / 255 * s for plane, s in zip((y, u, v), scales, strict=True)]
    area = window_sum(np.ones_like(mask))
    fitted_rows = np.ones_like(mask)  # averaging fills the rows between; they are not learnt from either
    if smoothing:
        fitted_rows[1::2] = 0
    smoothed_area = window_sum(fitted_rows, smoothing)
    p = np.clip(np.nan_to_num(_drawn_out(mask, level), nan=0.0), 0, 1)

    def at_nodes() -> F32:
        fitted = offset + sum(g * c / s for g, c, s in zip(gain, guide, scales, strict=True))
        clipped: F32 = np.clip(fitted, 0, 1).astype(np.float32)
        return clipped

    for done in range(passes):
        if done:
            p = at_nodes()
        weight = (np.abs(2 * p - 1) + np.float32(weight_floor)) * fitted_rows
        total = window_sum(weight)
        sums = [window_sum(weight * c) for c in guide]
        person, products = window_sum(weight * p), [window_sum(weight * p * c) for c in guide]
        mean, mean_p = [s / total for s in sums], person / total
        covariance = np.empty((*p.shape, 3, 3), np.float32)
        with_mask = np.empty((*p.shape, 3, 1), np.float32)
        for i in range(3):
            with_mask[..., i, 0] = products[i] / total - mean[i] * mean_p
            for j in range(i, 3):
                entry = window_sum(weight * guide[i] * guide[j]) / total - mean[i] * mean[j]
                covariance[..., i, j] = covariance[..., j, i] = entry + (epsilon if i == j else 0)
        fit = np.clip(np.linalg.solve(covariance, with_mask)[..., 0], -steepest, steepest)
        intercept = mean_p - sum(fit[..., i] * mean[i] for i in range(3))
        share = np.clip((window_sum(4 * p * (1 - p)) / area - low) / (high - low), 0, 1)
        for i in range(3):
            smooth = window_sum(fit[..., i] * fitted_rows, smoothing) / smoothed_area
            gain[i] = smooth * scales[i] * share * sharpness
            offset_share = total * np.float32(0.02) + np.float32(1e-6)
            front = (products[i] + 0.02 * sums[i]) / (person + offset_share)
            back = (1.02 * sums[i] - products[i]) / (total - person + offset_share)
            colour = (front + 0.5 * (front - back)) * (255 / scales[i]) + 128.5
            foreground[i] = np.clip(colour, 16, 240).astype(np.uint8)
            if smoothing:
                foreground[i, 1::2] = foreground[i, : foreground.shape[1] // 2 * 2 : 2]
        smooth = window_sum(intercept * fitted_rows, smoothing) / smoothed_area
        offset[:] = share * ((smooth - 0.5) * sharpness + 0.5) + (1 - share) * p
    alpha, around = at_nodes(), np.ones((3, 3), np.uint8)
    none, all_of_it = cv2.dilate(alpha, around) < negligible, cv2.erode(alpha, around) > 1 - negligible
    gain[:, none | all_of_it] = 0
    offset[none], offset[all_of_it] = 0, 1


def _fastest() -> Kernel:
    try:
        from edge_seg import _matte
    except ImportError:  # no compiler where the package was installed
        return refine_reference
    return _matte.refine


kernel = _fastest()
