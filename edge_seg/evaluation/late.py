"""The late-mask test: the ground truth as the model, late and seldom. Only the carrying is measured.

The mask of frame 0 is there at once, for the recursion needs a beginning. After that, the masks of the frames
n, 2n, 3n ... arrive, each `lag` frames after its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_seg.evaluation.clip import Clip, Tick
from edge_seg.evaluation.methods import Ours, Settings
from edge_seg.types import F32

HOLD = "hold"
OURS = "ours"
METHODS = (HOLD, OURS)


@dataclass(frozen=True, slots=True)
class Delay:
    """How late masks arrive, and how seldom."""

    lag: int
    """In frames."""
    every: int
    """A mask for every so-manieth frame."""

    def __str__(self) -> str:
        return f"{self.lag},{self.every}"

    def arriving(self, frame: int) -> int | None:
        """The frame whose mask arrives at `frame`; None if none does."""
        made_for = frame - self.lag
        if frame == 0:
            return 0
        return made_for if made_for > 0 and made_for % self.every == 0 else None


DELAYS = (Delay(1, 1), Delay(2, 3), Delay(4, 5))


def run(method: str, clip: Clip, delay: Delay, settings: Settings, tick: Tick) -> F32:
    """The mask shown with each frame. Shape: (frames, rows, cols), float32 in [0, 1]."""
    out = np.empty_like(clip.truth)
    ours = Ours(settings) if method == OURS else None
    newest = 0
    for index, small in enumerate(clip.smalls):
        arriving = delay.arriving(index)
        if ours is not None:
            ours.advance(small)
            if arriving is not None:
                ours.observe(clip.truth[arriving], arriving)
            out[index] = ours.target()
        else:
            newest = newest if arriving is None else arriving
            out[index] = clip.truth[newest]
        tick()
    return out
