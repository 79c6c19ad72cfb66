"""What _kalman.c computes, in NumPy: the update of a mask by a measured one."""

from __future__ import annotations

import numpy as np

from edge_seg.alike import Picture, box3, mean_of_alike
from edge_seg.plate_reference import Plate, evidence
from edge_seg.types import F32

SCATTER = tuple(
    (y, x, 1 / 16)
    for y, x in (
        (-4, -1), (-3, -3), (-3, 3), (-2, 1), (-1, -2), (-1, 4), (0, 0),
        (1, -4), (1, 2), (2, -1), (3, -3), (3, 3), (4, 1),
    )
)  # fmt: skip
"""The window when the target mask is smoothed: errors of the model are blobs, not single elements."""
CALM = np.float32(3 / 64)
"""Masks that differ by less, over 3x3, are not smoothed."""
NOTHING = np.float32(1e-6)
"""Probabilities up to here are zero: they would become numbers that processors are slow with."""


def uncertainty(measured: F32, variance: F32, noise: float, noise_floor: float) -> None:
    """Writes the variance of a mask of the model: that of a coin with its probabilities, and a floor."""
    variance[:] = np.float32(noise) * (np.float32(noise_floor) + 4 * (measured * (1 - measured)))


def update(
    picture: Picture,
    probability: F32,
    variance: F32,
    measured: F32,
    measured_variance: F32 | None,
    out_probability: F32,
    noise: float,
    noise_floor: float,
    like: float,
    chroma: float,
    repeat: float,
    plate: Plate | None,
) -> None:
    """One step of a scalar Kalman filter for each element, then smoothing along the edges of the picture.

    First the measured mask is weighed by what is known of the background, and that learns from it, if there is a
    `plate` (`plate_reference.evidence`; `measured_variance` is then changed in place).

    `variance` is changed in place. Without one of its own the measured mask has that of its probabilities
    (`uncertainty`). Smoothed is only where the two masks disagree (the mean over 3x3): by CALM not at all, by `repeat`
    more half of the way. What repeats itself stays as it is.
    """
    if plate is not None:
        weighed = np.empty_like(measured)
        evidence(picture, *plate, probability, measured, weighed, measured_variance, chroma, noise)
        measured = weighed
    if measured_variance is None:
        measured_variance = np.empty_like(measured)
        uncertainty(measured, measured_variance, noise, noise_floor)
    gain = variance / (variance + measured_variance)
    innovation = measured - probability
    fused = probability + gain * innovation
    fused = np.where(fused > NOTHING, fused, np.float32(0))
    pixels = [plane.astype(np.float32) for plane in picture]
    disagreement = np.maximum(box3(np.abs(innovation)) - CALM, 0)
    share = disagreement / (disagreement + np.float32(repeat))
    alike = mean_of_alike(pixels, pixels, fused, like, chroma, SCATTER)
    out_probability[:] = np.clip(fused + share * (alike - fused), 0, 1)
    variance -= gain * variance
