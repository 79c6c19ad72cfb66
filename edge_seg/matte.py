"""From the coarse mask and the luma to an alpha that follows the edges of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import cv2
import numpy as np
from annotated_types import Interval

from edge_seg.composite import alpha_256
from edge_seg.types import F32, U8, Alpha, Mask

Quality = Literal["fast", "balanced", "best"]

_MAX_GAIN = 7.9
"""Alpha per unit of luma. A steeper fit would turn sensor noise into a flickering edge."""


@dataclass(frozen=True)
class MatteSettings:
    """How the edge of the person is made. `fast` upsamples the mask; the others fit it to the picture."""

    quality: Quality = "balanced"
    radius: Annotated[int, Interval(ge=1, le=16)] = 2
    """Of the guided filter's window, in pixels of the mask."""
    epsilon: Annotated[float, Interval(ge=1e-6, le=1.0)] = 1e-4
    """Luma variance (luma in [0, 1]) below which the picture does not move the edge: its noise."""


def refine(mask: Mask, luma: U8, settings: MatteSettings) -> Alpha:
    """An alpha for the frame that `mask` and `luma` are of.

    luma: shape (rows, cols) of the mask, uint8: the frame's luma averaged down to the mask's resolution.
    """
    if luma.shape != mask.probability.shape:
        raise ValueError(f"luma: expected the mask's shape {mask.probability.shape}, got {luma.shape}")
    if settings.quality == "fast":
        gain = np.zeros_like(mask.probability)
        return Alpha(gain=gain, offset=mask.probability, seq=mask.seq)
    gain, offset = _guided_coefficients(mask.probability, luma, settings.radius, settings.epsilon)
    return Alpha(gain=gain, offset=offset, seq=mask.seq)


def render(alpha: Alpha, luma: U8) -> U8:
    """Alpha at full resolution, for tests and measurements. Shape: that of `luma`, uint8, 0 to 255."""
    full = alpha_256(alpha.gain, alpha.offset, luma)
    return ((full * 255 + 128) >> 8).astype(np.uint8)


def _guided_coefficients(mask: F32, luma: U8, radius: int, epsilon: float) -> tuple[F32, F32]:
    """The fast guided filter's averaged linear model, mask = gain * luma + offset (arXiv:1505.00996)."""

    def mean(values: F32) -> F32:
        size = (2 * radius + 1, 2 * radius + 1)
        return np.asarray(cv2.blur(values, size, borderType=cv2.BORDER_REFLECT), np.float32)

    guide = luma.astype(np.float32) / 255
    mean_guide, mean_mask = mean(guide), mean(mask)
    variance = mean(guide * guide) - mean_guide * mean_guide
    covariance = mean(guide * mask) - mean_guide * mean_mask
    gain = np.clip(covariance / (variance + np.float32(epsilon)), -_MAX_GAIN, _MAX_GAIN)
    offset = mean_mask - gain * mean_guide
    return mean(gain), mean(offset)
