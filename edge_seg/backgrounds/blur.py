"""The real background, blurred beyond recognition, with the person left out of the blur.

Normalised convolution (Knutsson and Westin, 1993): every pixel is weighted by how surely it is background,
and the blurred picture is divided by the blurred weights. So the person smears no halo around themselves, and
what stands behind them is filled in from around them.

It is computed on a small picture: cheap, and private by construction, for what the blurred picture can tell
is bounded by some two thousand 8-bit samples, whatever anybody does to sharpen it again.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge_seg.backgrounds.base import Background, BackgroundSettings
from edge_seg.backgrounds.still import solid
from edge_seg.pyramid import shrink
from edge_seg.types import F32, I420, U8, Frame, Mask, Matrix

_LONG_SIDE_PX = 64
"""Of the small picture that is blurred."""
_SIGMA_RANGE = (0.02, 0.08)
"""Of the blur at strength 0 and 1, as a fraction of the picture's long side. At 0.02 a head that fills a
quarter of the height is about two sigma wide."""
_PERSON = 0.1
"""Mask probability from which on a pixel is left out."""
_WIDEN = 4.0
"""How much wider the blur is that fills what is far behind the person."""
_TRUSTED = 0.05
"""Share of background within the blur's reach below which the wider blur takes over."""


class BlurBackground(Background):
    """The room, blurred. Without a mask the person is in the blur too, and it is as strong as can be."""

    def __init__(self, settings: BackgroundSettings, width: int, height: int, matrix: Matrix) -> None:
        scale = min(1.0, _LONG_SIDE_PX / max(width, height))
        self._size = max(1, round(width * scale)), max(1, round(height * scale))
        weakest, strongest = (fraction * max(self._size) for fraction in _SIGMA_RANGE)
        self._sigma_px = weakest + settings.strength * (strongest - weakest)
        self._strongest_px = strongest
        self._fallback = np.array(
            [plane.flat[0] for plane in solid(settings.colour, 1, 1, matrix).planes], np.float32
        )
        self._picture = I420.allocate(width, height, matrix)

    def render(self, frame: Frame, mask: Mask | None, now_ns: int) -> I420:
        small = shrink(frame.picture, self._size)
        height, width = small.y.shape
        weighted = np.empty((height, width, 4), np.float32)  # the planes, each times the weight; the weight
        weight = np.float32(1) if mask is None else _background_weight(mask.probability, self._size)
        for index, plane in enumerate((small.y, small.u, small.v)):
            np.multiply(plane, weight, out=weighted[..., index])
        weighted[..., 3] = weight
        blurred = _blur_known(
            weighted, self._strongest_px if mask is None else self._sigma_px, self._fallback
        )
        for index, plane in enumerate(self._picture.planes):
            coarse: U8 = np.rint(blurred[..., index]).astype(np.uint8)
            cv2.resize(coarse, (plane.shape[1], plane.shape[0]), dst=plane, interpolation=cv2.INTER_LINEAR)
        return self._picture


def _background_weight(probability: F32, size: tuple[int, int]) -> F32:
    """1 where surely no person is, shrunk by a pixel of the small picture. Shape: (size[1], size[0])."""
    person = cv2.resize(probability, size, interpolation=cv2.INTER_AREA)
    person = cv2.dilate(person, np.ones((3, 3), np.uint8))
    return np.asarray(np.clip(1 - person / np.float32(_PERSON), 0, 1), np.float32)


def _blur_known(weighted: F32, sigma_px: float, fallback: F32) -> F32:
    """The blurred picture of the weighted pixels, shape (rows, cols, 3); `fallback` where none is near.

    weighted: shape (rows, cols, 4), float32: three planes times the weight, and the weight.
    """
    rows, cols = weighted.shape[:2]
    half = cv2.resize(weighted, ((cols + 1) // 2, (rows + 1) // 2), interpolation=cv2.INTER_AREA)
    wide = cv2.resize(_gauss(np.asarray(half, np.float32), sigma_px * _WIDEN / 2), (cols, rows))
    filled = np.broadcast_to(fallback, (rows, cols, 3))
    for sums in (np.asarray(wide, np.float32), _gauss(weighted, sigma_px)):
        share = sums[..., 3:]
        # Fades to what the wider blur said where hardly any background is within reach.
        trust = np.clip(share / np.float32(_TRUSTED), 0, 1)
        filled = filled + trust * (sums[..., :3] / np.maximum(share, np.float32(1e-6)) - filled)
    return np.asarray(filled, np.float32)


def _gauss(values: F32, sigma_px: float) -> F32:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE), np.float32)
