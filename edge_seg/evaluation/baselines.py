"""The public mask smoothers that ours is measured against, written anew from their published formulas.

Each is a recursion: `step(mask, luma)` takes the model's mask of the next frame, (rows, cols), float32 in
[0, 1], and the frame's luma on the same grid, (rows, cols), uint8, and gives the smoothed mask. The first
step of each returns the model's mask.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from edge_seg.types import F32, U8


class Smoother(Protocol):
    """A recursion over the masks of one clip."""

    def step(self, mask: F32, luma: U8) -> F32: ...


class Raw:
    """The model's mask as it is."""

    def step(self, mask: F32, luma: U8) -> F32:
        return mask


class Ema:
    """The exponential moving average: x <- x + weight (z - x)."""

    def __init__(self, weight: float = 0.5) -> None:
        self._weight = np.float32(weight)
        self._last: F32 | None = None

    def step(self, mask: F32, luma: U8) -> F32:
        if self._last is None:
            self._last = mask
        else:
            self._last = self._last + self._weight * (mask - self._last)
        return self._last


# Coefficients of t^2, t^4, ... t^10 (t = p - 0.5) in the polynomial that stands for the certainty of p.
_MEDIAPIPE_CERTAINTY = (5.68842, -0.748699, -57.8051, 291.309, -624.717)


def mediapipe_uncertainty(p: F32) -> F32:
    """How uncertain a probability is: 1 at 0.5, about 0 at 0 and 1. Any shape, float32 in [0, 1].

    It is the square of the binary entropy in bits, which MediaPipe approximates as one minus an even
    polynomial in p - 0.5, clamped (segmentation_smoothing_calculator.cc: its comment and constants).
    """
    square = np.square(p - np.float32(0.5))
    certainty = np.zeros_like(p)
    for coefficient in reversed(_MEDIAPIPE_CERTAINTY):
        certainty = (certainty + np.float32(coefficient)) * square
    return np.float32(1) - np.minimum(certainty, np.float32(1))


class MediaPipe:
    """MediaPipe's SegmentationSmoothingCalculator: the last output stays where the new mask is uncertain.

    x <- z + ratio u(z) (x - z), with u of `mediapipe_uncertainty`.
    """

    def __init__(self, ratio: float = 0.7) -> None:
        self._ratio = np.float32(ratio)
        self._last: F32 | None = None

    def step(self, mask: F32, luma: U8) -> F32:
        if self._last is None:
            self._last = mask
        else:
            self._last = mask + self._ratio * mediapipe_uncertainty(mask) * (self._last - mask)
        return self._last


class PPHumanSeg:
    """PaddleSeg PP-HumanSeg's fusion: the last output, splatted along DIS flow, averaged with the new mask.

    A pixel is tracked where the forward vector and the backward vector at its end cancel (squared error
    below 8, both rounded to pixels). Where something was tracked to, the new mask weighs 0.3, or 0.05 where
    neither vector moves; if the new mask is certain (beyond 0.1 or 0.9) it weighs 0.4, or 0.3 if still.
    Elsewhere the new mask stands alone. (PaddleSeg, contrib/PP-HumanSeg, optic_flow_process: the fusion,
    without the blur and threshold that its demo displays with.)
    """

    MAX_ERROR_PX2 = 8
    WEIGHT_MOVING, WEIGHT_STILL = np.float32(0.3), np.float32(0.05)
    CERTAIN_MOVING, CERTAIN_STILL = np.float32(0.4), np.float32(0.3)

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._last: F32 | None = None
        self._last_luma: U8 | None = None

    def step(self, mask: F32, luma: U8) -> F32:
        if self._last is None or self._last_luma is None:
            self._dis.setFinestScale(finest_scale(*mask.shape))
            self._last = mask
        else:
            forward = np.asarray(self._dis.calc(self._last_luma, luma, None), np.float32)  # type: ignore[call-overload]
            backward = np.asarray(self._dis.calc(luma, self._last_luma, None), np.float32)  # type: ignore[call-overload]
            self._last = self.fuse(self._last, mask, forward, backward)
        self._last_luma = luma
        return self._last

    @classmethod
    def fuse(cls, last: F32, mask: F32, forward: F32, backward: F32) -> F32:
        """One step, the flow given. Masks: (rows, cols); flow: (rows, cols, 2), (dx, dy) in px, float32."""
        rows, cols = mask.shape
        there = np.rint(forward).astype(np.int64)
        back = np.rint(backward).astype(np.int64)
        y, x = np.mgrid[:rows, :cols]
        to_x, to_y = x + there[..., 0], y + there[..., 1]
        inside = (to_x >= 0) & (to_x < cols) & (to_y >= 0) & (to_y < rows)
        # Vectors that leave the picture are not followed; the clip only keeps the indices legal.
        end = back[np.clip(to_y, 0, rows - 1), np.clip(to_x, 0, cols - 1)]
        tracked = inside & (np.square(there + end).sum(-1) < cls.MAX_ERROR_PX2)
        still = tracked & ~there.any(-1) & ~end.any(-1)

        carried, reached = np.zeros_like(mask), np.zeros(mask.shape, np.bool_)
        at = to_y[tracked], to_x[tracked]
        carried[at], reached[at] = last[tracked], True

        certain = (mask > 0.9) | (mask < 0.1)
        weight = np.where(
            still,
            np.where(certain, cls.CERTAIN_STILL, cls.WEIGHT_STILL),
            np.where(certain, cls.CERTAIN_MOVING, cls.WEIGHT_MOVING),
        )
        return np.where(reached, weight * mask + (1 - weight) * carried, mask).astype(np.float32)


def finest_scale(rows: int, cols: int) -> int:
    """The DIS pyramid level at which PP-HumanSeg stops, by the size of its masks."""
    smaller = min(rows, cols)
    return 1 if smaller <= 64 else 2 if smaller <= 160 else 3
