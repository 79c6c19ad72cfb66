"""How good a sequence of masks is, and how steady: IoU, BF1, MAD, dtSSD, ghost_k, cut_k.

Everywhere `p` is our mask and `g` the ground truth: (frames, rows, cols), float32 in [0, 1], at the model's
resolution (`g` area-resampled). Foreground is a value of at least 0.5. IoU, BF1, ghost and cut are fractions,
MAD is in thousandths, dtSSD in hundredths.

Every figure is first taken per frame and then averaged over the frames of a clip, so that a frame with a
small person counts as much as one with a large person. A frame on which a figure has no meaning (ghost,
where no element of the background was foreground lately; dtSSD, on the first frame) is NaN and left out of
the mean; a clip where it has no meaning on any frame has the figure NaN. Empty masks do have a meaning: an
empty mask of an empty frame is right (IoU = BF1 = 1), and one empty of the two is wrong (0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.types import F32, U8

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

FOREGROUND = 0.5
GHOST_FRAMES = 3
_SQUARE = np.ones((3, 3), np.uint8)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True, slots=True)
class PerFrame:
    """The figures of each frame. Each array has the shape (frames,), float64, NaN where it has no meaning."""

    iou: F64
    bf1: F64
    mad: F64
    dtssd: F64
    ghost: F64
    cut: F64


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of one clip, or the mean of several clips."""

    iou: float
    bf1: float
    mad: float
    dtssd: float
    ghost: float
    cut: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


NAMES = tuple(field.name for field in fields(Scores))


def per_frame(p: F32, g: F32, tick: Callable[[], object] = lambda: None) -> PerFrame:
    """Every figure of every frame. Shapes: (frames, rows, cols) both. `tick` is called for each frame."""
    if p.shape != g.shape or p.ndim != 3 or p.size == 0:
        raise ValueError(f"masks and truth must both be (frames, rows, cols), got {p.shape}, {g.shape}")
    ours, truth = p >= FOREGROUND, g >= FOREGROUND
    bf1 = np.empty(len(p))
    for index in range(len(p)):
        bf1[index] = boundary_f1(ours[index], truth[index])
        tick()
    return PerFrame(
        iou=iou(ours, truth),
        bf1=bf1,
        mad=1000 * np.abs(p - g).mean((1, 2), dtype=np.float64),
        dtssd=dtssd(p, g),
        ghost=ghost(p, g),
        cut=cut(p, g),
    )


def scores(p: F32, g: F32) -> Scores:
    """The figures of one clip. Shapes: (frames, rows, cols) both."""
    return summary(per_frame(p, g))


def summary(figures: PerFrame) -> Scores:
    """The means over the frames of a clip."""
    return Scores(**{name: nan_mean(getattr(figures, name)) for name in NAMES})


def mean(clips: Iterable[Scores]) -> Scores:
    """The means over clips: each clip counts the same, however long it is."""
    clips = list(clips)
    return Scores(**{name: nan_mean([getattr(clip, name) for clip in clips]) for name in NAMES})


def nan_mean(values: F64 | list[float]) -> float:
    """The mean of what is not NaN, NaN where nothing is left (without NumPy's warning)."""
    array = np.asarray(values, np.float64)
    kept = array[~np.isnan(array)]
    return float(kept.mean()) if kept.size else float("nan")


def iou(p: Bool, g: Bool) -> F64:
    """Intersection over union of each frame. Shapes: (frames, rows, cols) in, (frames,) out."""
    union = (p | g).sum((1, 2))
    return np.where(union > 0, (p & g).sum((1, 2)) / np.maximum(union, 1), 1.0)


def boundary(mask: Bool) -> U8:
    """The 1-pixel-wide boundary, inside the object: elements with background around, also at a corner.

    The frame's edge is no boundary: a person who reaches out of the picture has none there.
    """
    inside = mask.astype(np.uint8)
    eroded = _u8(cv2.erode(inside, _SQUARE, borderType=cv2.BORDER_REPLICATE))
    return inside - eroded


def boundary_f1(p: Bool, g: Bool) -> float:
    """F-measure of the boundaries, matched within 1 px (not diagonally). Shapes: (rows, cols).

    The measure of Csurka et al. ("What is a good evaluation measure for semantic segmentation?", BMVC 2013)
    and of DAVIS (Perazzi et al., CVPR 2016), with a tolerance that still sees the jitter of an edge.
    """
    ours, truth = boundary(p), boundary(g)
    found, wanted = int(ours.sum()), int(truth.sum())
    if found == 0 or wanted == 0:
        # No edge (an empty or a full mask) is right only where there is none, and both are empty or full.
        return float(found == wanted and bool(p.flat[0]) == bool(g.flat[0]))
    precision = int((ours & _u8(cv2.dilate(truth, _CROSS))).sum()) / found
    recall = int((truth & _u8(cv2.dilate(ours, _CROSS))).sum()) / wanted
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def dtssd(p: F32, g: F32) -> F64:
    """Jitter: how much the change since the last frame differs from the truth's, x 100. (frames,), NaN first.

    Erofeev et al., "Perceptually Motivated Benchmark for Video Matting", BMVC 2015.
    """
    out = np.full(len(p), np.nan)
    for t in range(1, len(p)):
        change = (p[t] - p[t - 1]) - (g[t] - g[t - 1])
        out[t] = 100 * np.sqrt(np.mean(np.square(change), dtype=np.float64))
    return out


def ghost(p: F32, g: F32, k: int = GHOST_FRAMES) -> F64:
    """What trails: the mean of `p` where the person was in the last `k` frames and no longer is. (frames,)"""
    truth = g >= FOREGROUND
    return _mean_where(p, ~truth & _lately(truth, k))


def cut(p: F32, g: F32, k: int = GHOST_FRAMES) -> F64:
    """What is eaten at the leading edge: the mean of 1 - `p` where the person has come lately. (frames,)"""
    truth = g >= FOREGROUND
    return _mean_where(1 - p, truth & _lately(~truth, k))


def _lately(mask: Bool, k: int) -> Bool:
    """True where `mask` was true in one of the last `k` frames, this one not counted."""
    out = np.zeros_like(mask)
    for back in range(1, min(k, len(mask) - 1) + 1):
        out[back:] |= mask[:-back]
    return out


def _mean_where(values: F32, where: Bool) -> F64:
    count = where.sum((1, 2))
    total = np.where(where, values, 0).sum((1, 2), dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _u8(image: object) -> U8:
    """What OpenCV returns, by its real type (its stubs say: any integer or float)."""
    return np.asarray(image, np.uint8)
