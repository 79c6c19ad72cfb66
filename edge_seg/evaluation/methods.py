"""The methods that are compared, all on the same masks of the model: the public smoothers, and ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edge_seg import flow
from edge_seg.evaluation.baselines import Ema, MediaPipe, PPHumanSeg, Raw, Smoother
from edge_seg.evaluation.clip import Clip, Tick
from edge_seg.flow import FlowSettings
from edge_seg.fusion import Fusion, FusionSettings
from edge_seg.pyramid import Yuv444
from edge_seg.types import F32, BlockFlow, Mask

BASELINES: dict[str, Callable[[], Smoother]] = {
    "raw": Raw,
    "ema": Ema,
    "mediapipe": MediaPipe,
    "pphumanseg": PPHumanSeg,
}
OURS = "ours"
METHODS = (*BASELINES, OURS)

FRAME_NS = 1_000_000_000 // 30
"""Time from frame to frame: sequences of pictures do not say, and 30 a second is what cameras give."""


@dataclass(frozen=True)
class Settings:
    """What of the configuration ours depends on."""

    flow: FlowSettings = field(default_factory=FlowSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)


class Ours:
    """Flow and fusion, frame by frame, as the daemon's pipeline runs them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fusion = Fusion(settings.fusion)
        self._previous: Yuv444 | None = None
        self._prepared: flow.Prepared | None = None
        self._flow: BlockFlow | None = None
        self._seq = -1

    def advance(self, small: Yuv444) -> None:
        """On to the next frame."""
        previous, self._previous = self._previous, small
        self._seq += 1
        before, self._prepared = self._prepared, flow.prepare(small.y)
        if before is None:
            self._flow = None
        else:
            self._flow = flow.estimate(before, self._prepared, self._settings.flow, hint=self._flow)
        last_luma = None if previous is None else previous.y
        self._fusion.advance(
            last_luma, small.y, self._flow, self._seq, self._seq * FRAME_NS, (small.u, small.v)
        )

    def observe(self, probability: F32, seq: int) -> None:
        """Takes the model's mask of the frame `seq`: this one or an earlier one."""
        self._fusion.observe(Mask(np.ascontiguousarray(probability), seq, seq, seq * FRAME_NS))

    def target(self) -> F32:
        """The target mask of this frame; empty where there is none, for then viewers see no person."""
        assert self._previous is not None, "advance comes first"
        mask = self._fusion.target()
        if mask is None:
            return np.zeros((self._previous.height, self._previous.width), np.float32)
        if mask.seq != self._seq:
            raise AssertionError(f"fusion gave the mask of frame {mask.seq} for frame {self._seq}")
        return mask.probability


def run(method: str, clip: Clip, masks: F32, settings: Settings, tick: Tick) -> F32:
    """The masks of one method. Shape of the model's `masks` and of the result: that of `clip.truth`."""
    out = np.empty_like(masks)
    if method == OURS:
        ours = Ours(settings)
        for index, small in enumerate(clip.smalls):
            ours.advance(small)
            ours.observe(masks[index], index)
            out[index] = ours.target()
            tick()
        return out
    smoother = BASELINES[method]()
    for index, small in enumerate(clip.smalls):
        out[index] = smoother.step(masks[index], small.y)
        tick()
    return out
