"""What _plate.h computes, in NumPy: what is known of the background, and what a picture says when compared with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_seg.alike import Picture
from edge_seg.types import F32, U8

Plate = tuple[Picture, U8, NDArray[np.float64]]
"""The background, for how many frames each element was seen, and the counts: see `evidence`."""

EDGE = np.float32(0.32)
"""Share of the greatest squared difference around an element from which on it is more person than background."""
REACH = 2
"""How far around that is, in pixels."""
CHROMA_MOST, CHROMA_QUARTERS, CHROMA_ALONE = 127, 8064, np.float32(16511)
"""Squared differences are kept as whole quarters, so that they fit 16 bits: those of luma up to 255 * 255 / 4, those of
chroma up to what is left, and of no more than so many code values or quarters before they are weighted."""
NOISE = np.float32(50)
"""Squared difference, in quarters of squared code values, that noise and shadows make."""
SAME = np.float32(50)
"""Squared difference up to which the background counts as unchanged, likewise."""
EMPTY = np.float32(0.25)
"""The background is learned where the model's mask is below. From there on, it can speak against a person."""
KNOWN = np.float32(10)
"""After so many frames it is fully believed."""
SEEN = 30
"""More frames than these are not counted."""
LOSS = 2
"""Frames that it is known less long after each in which it was another: after 15 the new one is taken. So an
arm that the model overlooks is not taken for background at once."""
MEMORY = 0.9
"""Share of the sums that is kept from frame to frame."""
COUNTED = 8
"""Every so many rows are counted, for all."""
LEAST, MOST = np.float32(0.07), np.float32(50)
"""Odds that it gives at least and at most: it overrules the model where that doubts, not where it is sure."""
DOUBT = np.float32(3)
"""Where one in so many elements of the background differs, it is not the background, and nothing is said."""
PRIOR = 500.0
"""Elements that are thought to have differed and not to have, before anything was seen."""
LEVEL = np.float32(1 / 256)
"""Least step of the model's masks: its 0 is not impossible."""


def evidence(
    picture: Picture,
    plate: Picture,
    seen: U8,
    sums: NDArray[np.float64],
    probability: F32,
    measured: F32,
    weighed: F32,
    variance: F32 | None,
    chroma: float,
    noise: float,
) -> None:
    """What the picture says of the measured mask when it is compared with the background as it was seen before.

    Writes that mask as it is then to `weighed`. Changes in place: its `variance` (`noise` as in
    `kalman_reference.uncertainty`; None: it is that of its probabilities, whatever they are); the background, `plate`
    and `seen` (for how many frames each element was seen, uint8), where `measured` shows nobody; and `sums`, (4,):
    differences and weights of what is background by `probability`, then of what is person.

    An element differs by half if its squared difference of colour (chroma counts `chroma` times) is EDGE of the
    greatest around it: where the outline runs, that is an element which is half person. How much a difference says
    is measured: how often it is seen where the person is, over how often where the person is not. So a moving
    camera, or light that changes, takes all weight from it. Nothing is said against a person
    where the model sees none, nor for one where nothing differs: on a still picture nothing changes.
    """
    apart = _apart(picture, plate, chroma)
    half = np.maximum(EDGE * _greatest(apart), NOISE)
    known = np.minimum(seen.astype(np.float32) / KNOWN, np.float32(1))
    in_background, in_person = (np.float32((sums[i] + PRIOR) / (sums[i + 1] + 2 * PRIOR)) for i in (0, 2))
    in_person = np.maximum(in_person, in_background)
    odds = (in_person * apart + (1 - in_person) * half) / (in_background * apart + (1 - in_background) * half)
    ratio = np.clip(odds**6, LEAST, MOST)
    doubt = np.clip((measured - EMPTY) / EMPTY, 0, 1)
    trust = np.clip(1 - DOUBT * in_background, 0, 1)
    gain = (ratio - 1) * known * trust * np.where(ratio > 1, np.float32(1), doubt)
    start = np.maximum(measured, LEVEL)
    weighed[:] = measured + start * (1 - start) * gain / (1 + start * gain)
    counted = np.s_[::COUNTED]
    _count((apart / (apart + half))[counted], known[counted], probability[counted], sums)
    _learn(picture, plate, seen, measured < EMPTY, apart < SAME)
    if variance is not None:
        variance += np.float32(4 * noise) * (weighed * (1 - weighed) - measured * (1 - measured))


def _apart(picture: Picture, plate: Picture, chroma: float) -> F32:
    """Squared differences of colour, in whole quarters."""
    dy, du, dv = (a.astype(np.int64) - b for a, b in zip(picture, plate, strict=True))
    du, dv = (np.clip(d, -CHROMA_MOST, CHROMA_MOST) for d in (du, dv))
    weight = np.float32(chroma)
    most = min(int(CHROMA_ALONE / weight), CHROMA_QUARTERS) if chroma > 0 else CHROMA_QUARTERS
    shift = min(16 - most.bit_length(), 15)
    factor = int(weight * np.float32(1 << (16 - shift)))
    quarters = np.minimum((du * du + dv * dv) // 4, most)
    result: F32 = (dy * dy // 4 + (((quarters << shift) * factor) >> 16)).astype(np.float32)
    return result


def _greatest(values: F32) -> F32:
    """The greatest of the square around each element."""
    rows, cols = values.shape
    padded = np.pad(values, REACH, mode="edge")
    down = np.max([padded[i : i + rows] for i in range(2 * REACH + 1)], axis=0)
    result: F32 = np.max([down[:, i : i + cols] for i in range(2 * REACH + 1)], axis=0)
    return result


def _count(differs: F32, known: F32, probability: F32, sums: NDArray[np.float64]) -> None:
    sums *= MEMORY
    for i, weight in enumerate((known * (1 - probability), known * probability)):
        sums[2 * i] += COUNTED * (weight * differs).sum(dtype=np.float64)
        sums[2 * i + 1] += COUNTED * weight.sum(dtype=np.float64)


def _learn(
    picture: Picture, plate: Picture, seen: U8, empty: NDArray[np.bool_], same: NDArray[np.bool_]
) -> None:
    """One step towards the picture where nobody is and it is the same; anew where it was another for long."""
    nearer, anew = empty & same, empty & ~same & (seen <= LOSS)
    for now, known in zip(picture, plate, strict=True):
        step = (now > known).astype(np.int8) - (now < known)
        known[:] = np.where(anew, now, np.where(nearer, known + step, known))
    longer, shorter = np.minimum(seen + 1, SEEN), np.where(seen > LOSS, seen - LOSS, 0)
    seen[:] = np.where(nearer, longer, np.where(empty, shorter, seen))
