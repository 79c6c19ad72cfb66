"""A sequence at the model's resolution: what every method works on and is measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from edge_seg.evaluation.sequences import Sequence
from edge_seg.pyramid import Yuv444, shrink
from edge_seg.segmenter import Segmenter
from edge_seg.types import F32, U8

Tick = Callable[[], object]
"""Called once for every piece of work done, for the progress bar."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The frames of a sequence on the model's grid."""

    name: str
    labels: tuple[str, ...]
    smalls: tuple[Yuv444, ...]
    """Each picture at the model's resolution; its luma is the grid of the flow, too."""
    truth: F32
    """Shape: (frames, rows, cols), float32 in [0, 1], area-resampled."""

    def __len__(self) -> int:
        return len(self.labels)


def load(
    sequence: Sequence, segmenter_for: Callable[[tuple[int, int]], Segmenter], tick: Tick
) -> tuple[Clip, Segmenter]:
    """The sequence at the resolution of the segmenter that fits its first picture's (width, height)."""
    segmenter: Segmenter | None = None
    labels: list[str] = []
    smalls: list[Yuv444] = []
    truths: list[F32] = []
    for sample in sequence.samples():
        if segmenter is None:
            segmenter = segmenter_for((sample.picture.width, sample.picture.height))
        labels.append(sample.label)
        smalls.append(shrink(sample.picture, segmenter.input_size))
        truths.append(resample(sample.truth, segmenter.input_size))
        tick()
    assert segmenter is not None, "a sequence has at least one frame, or raises"
    return Clip(sequence.name, tuple(labels), tuple(smalls), np.stack(truths)), segmenter


def resample(truth: U8, size: tuple[int, int]) -> F32:
    """Shape (rows, cols), 0 to 255, to (height, width) of `size`, float32 in [0, 1], by mean over areas."""
    # In float: rounding to 8 bits first would move elements that are half covered across the threshold.
    area = cv2.resize(truth.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(area / 255, 0, 1), np.float32)
