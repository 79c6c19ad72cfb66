"""From the coarse mask to an alpha that follows the edges of the picture.

Around every node of the mask's grid the mask is regressed on colour: the guided filter (He, Sun, Tang,
"Guided Image Filtering", TPAMI 2013) with all three planes as guide, computed on every other node of every
other row and applied to the full picture ("Fast Guided Filter", arXiv:1505.00996). Three things are added to it,
because the filter blurs, leaks and is fooled just where the model is unsure:

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

from edge_seg import kernels
from edge_seg.composite import alpha_256
from edge_seg.pyramid import Yuv444
from edge_seg.types import ALPHA_ONE, F32, GAIN_ONE, I16, I420, U8, Alpha, Mask, fixed, is_fitted

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
    """Of the window in which mask and colour are compared, in pixels of the mask; rounded up to an even number."""
    smoothing: Annotated[int, Interval(ge=0, le=16)] = 2
    """Radius over which neighbouring fits are averaged, in pixels of the mask; rounded likewise."""
    epsilon: Annotated[float, Interval(ge=1e-6, le=1.0)] = 1e-4
    """Variance of the colour (in [0, 1]) that is noise: the fit does not follow what is fainter."""


Kernel = Callable[..., None]


def refine(mask: Mask, small: Yuv444, settings: MatteSettings) -> Alpha:
    """An alpha for the frame that `mask` is of. `small` is that frame at the mask's size (pyramid.shrink)."""
    shape = mask.probability.shape
    if small.y.shape != shape:
        raise ValueError(f"small: expected the mask's shape {shape}, got {small.y.shape}")
    if settings.quality == "fast":
        offset = np.empty(shape, np.int16)
        draw_out(mask.probability, offset, LEVEL)
        return Alpha(offset, mask.seq)
    gain, offset = np.empty((3, *shape), np.int16), np.empty(shape, np.int16)
    foreground = np.empty((3, *shape), np.uint8)
    kernel(
        mask.probability, small.y, small.u, small.v, gain, offset, foreground,
        settings.radius, settings.smoothing, _PASSES[settings.quality], settings.epsilon, _CHROMA_SCALE,
        _WEIGHT_FLOOR, *_UNCERTAINTY, _SHARPNESS, LEVEL, _STEEPEST, _NEGLIGIBLE,
    )  # fmt: skip
    return Alpha(offset, mask.seq, gain, foreground)


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
    mask: F32, y: U8, u: U8, v: U8, out_gain: I16, out_offset: I16, foreground: U8,
    radius: int, smoothing: int, passes: int, epsilon: float, chroma_scale: float,
    weight_floor: float, low: float, high: float, sharpness: float, level: float, steepest: float, negligible: float,
) -> None:  # fmt: skip
    """What _matte.refine computes, in NumPy and OpenCV, over the whole grid instead of the band only."""
    rows, cols = mask.shape
    gain, offset = np.empty((3, rows, cols), np.float32), np.empty((rows, cols), np.float32)
    reach, averaged = (radius + 1) // 2, (smoothing + 1) // 2

    def window_sum(values: F32, reach: int = reach) -> F32:
        size = (2 * reach + 1, 2 * reach + 1)
        summed = cv2.boxFilter(values, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(summed, np.float32)

    def full(values: F32) -> F32:
        """From the half grid to the full one: nodes between two others are their mean."""
        for size in (rows, cols):
            between = (values + np.concatenate([values[1:], values[-1:]])) / 2
            values = np.stack([values, between], axis=1).reshape(-1, values.shape[1])[:size].T
        return values

    def mean_of_four(values: F32) -> F32:
        even = np.pad(values, ((0, rows % 2), (0, cols % 2)), mode="edge")
        mean: F32 = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]) / 4
        return mean

    scales = np.array([1, chroma_scale, chroma_scale], np.float32)
    colour = [(plane.astype(np.float32) - 128) / 255 for plane in (y, u, v)]
    guide = [plane[::2, ::2] * scale for plane, scale in zip(colour, scales, strict=True)]
    area = window_sum(np.ones_like(guide[0]))
    smoothed_area = window_sum(np.ones_like(guide[0]), averaged)
    p = np.clip(np.nan_to_num(_drawn_out(mask, level), nan=0.0), 0, 1)

    def at_nodes() -> F32:
        fitted = offset + sum(g * c for g, c in zip(gain, colour, strict=True))
        clipped: F32 = np.clip(fitted, 0, 1).astype(np.float32)
        return clipped

    for done in range(passes):
        if done:
            p = at_nodes()
        sampled = np.ascontiguousarray(p[::2, ::2])
        weight = np.abs(2 * sampled - 1) + np.float32(weight_floor)
        total = window_sum(weight)
        sums = [window_sum(weight * c) for c in guide]
        person, products = window_sum(weight * sampled), [window_sum(weight * sampled * c) for c in guide]
        mean, mean_p = [s / total for s in sums], person / total
        covariance = np.empty((*sampled.shape, 3, 3), np.float32)
        with_mask = np.empty((*sampled.shape, 3, 1), np.float32)
        for i in range(3):
            with_mask[..., i, 0] = products[i] / total - mean[i] * mean_p
            for j in range(i, 3):
                entry = window_sum(weight * guide[i] * guide[j]) / total - mean[i] * mean[j]
                covariance[..., i, j] = covariance[..., j, i] = entry + (epsilon if i == j else 0)
        fit = np.clip(np.linalg.solve(covariance, with_mask)[..., 0], -steepest, steepest)
        intercept = mean_p - sum(fit[..., i] * mean[i] for i in range(3))
        share = np.clip((window_sum(mean_of_four(4 * p * (1 - p))) / area - low) / (high - low), 0, 1)
        for i in range(3):
            smooth = window_sum(np.ascontiguousarray(fit[..., i]), averaged) / smoothed_area
            gain[i] = full(smooth * scales[i] * share * sharpness)
            little = total * np.float32(0.02) + np.float32(1e-6)
            front = (products[i] + 0.02 * sums[i]) / (person + little)
            back = (1.02 * sums[i] - products[i]) / (total - person + little)
            half_way = (front + 0.5 * (front - back)) * (255 / scales[i]) + 128.5
            code = np.clip(half_way, 16, 240).astype(np.uint8)
            foreground[i] = code.repeat(2, axis=0).repeat(2, axis=1)[:rows, :cols]
        smooth = window_sum(intercept, averaged) / smoothed_area
        offset[:] = full(share * ((smooth - 0.5) * sharpness + 0.5)) + (1 - full(share)) * p
    alpha, around = at_nodes(), np.ones((3, 3), np.uint8)
    none, all_of_it = cv2.dilate(alpha, around) < negligible, cv2.erode(alpha, around) > 1 - negligible
    out_gain[:], out_offset[:] = fixed(gain, GAIN_ONE), fixed(offset, ALPHA_ONE)
    out_offset[out_gain.any(axis=0) & ~is_fitted(out_offset)] -= 1  # the gains count
    out_offset[none], out_offset[all_of_it] = 0, ALPHA_ONE


def draw_out_reference(mask: F32, offset: I16, level: float) -> None:
    """What _matte.draw_out computes: the mask's ends drawn out to 0 and 1 and beyond, as an alpha without a gain."""
    offset[:] = fixed(_drawn_out(mask, level), ALPHA_ONE)


_native = kernels.load("matte")
kernel: Kernel = _native.refine if _native else refine_reference
draw_out: Kernel = _native.draw_out if _native else draw_out_reference
