"""Sequences with exact masks, drawn by the synthetic source: several motions, noise, cuts.

`python -m edge_seg.evaluation.synthetic_set FOLDER` writes them as files, to look at or to give to others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge_seg.colour import i420_to_bgr
from edge_seg.evaluation.sequences import Sample, Sequence
from edge_seg.sources import synthetic
from edge_seg.sources.base import SyntheticSettings

FRAMES = 90
SEED = 1
"""The same for all: a room takes longer to draw than the frames in it."""

SETTINGS = {
    "still_noisy": SyntheticSettings(width=640, height=360, motion="still", noise=6.0, seed=SEED),
    "sway": SyntheticSettings(width=640, height=360, motion="sway", seed=SEED),
    # At these rates, 90 frames hold a whole walk through the picture, and coming in and leaving again.
    "walk": SyntheticSettings(width=640, height=360, motion="walk", fps=12.5, seed=SEED),
    "enter_leave": SyntheticSettings(width=640, height=360, motion="enter_leave", fps=10.0, seed=SEED),
    "wave": SyntheticSettings(width=640, height=360, motion="wave", seed=SEED),
    "wave_square": SyntheticSettings(width=361, height=359, motion="wave", noise=4.0, seed=SEED),
    "pan": SyntheticSettings(width=640, height=360, motion="pan", seed=SEED),
    "cuts": SyntheticSettings(width=640, height=360, motion="sway", cut_every=15, seed=SEED),
}


class SyntheticSequence:
    """One of them, drawn as it is read."""

    left_out = ""

    def __init__(self, name: str, settings: SyntheticSettings, count: int = FRAMES) -> None:
        self.name = name
        self.count = count
        self._settings = settings

    def samples(self) -> Iterator[Sample]:
        for index in range(self.count):
            frame = synthetic.draw(self._settings, index, captured_ns=round(index * 1e9 / self._settings.fps))
            assert frame.truth is not None, "the synthetic source knows its masks"
            yield Sample(f"{index:05d}", frame.picture, frame.truth)


def sequences(count: int = FRAMES) -> list[Sequence]:
    """All of them, of `count` frames each."""
    return [SyntheticSequence(name, settings, count) for name, settings in SETTINGS.items()]


def write(sequence: Sequence, folder: Path) -> None:
    """As `folder/NAME/{rgb,mask}/NNNNN.png`, the layout that `find` reads."""
    for kind in ("rgb", "mask"):
        (folder / sequence.name / kind).mkdir(parents=True, exist_ok=True)
    for sample in sequence.samples():
        name = f"{sample.label}.png"
        picture = i420_to_bgr(sample.picture)
        for kind, image in (("rgb", picture), ("mask", np.ascontiguousarray(sample.truth))):
            path = folder / sequence.name / kind / name
            if not cv2.imwrite(str(path), image):
                raise OSError(f"{path}: cannot be written")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edge_seg.evaluation.synthetic_set FOLDER")
    for each in sequences():
        write(each, Path(sys.argv[1]))
