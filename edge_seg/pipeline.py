"""One frame through the stages. No threads, no files, no clock of its own; the model runs elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from edge_seg import flow, matte, slate
from edge_seg.backgrounds import Background
from edge_seg.budget import Plan
from edge_seg.composite import composite
from edge_seg.config import Config
from edge_seg.fusion import Fusion
from edge_seg.pyramid import Yuv444, shrink
from edge_seg.timings import StageTimes
from edge_seg.types import I420, BlockFlow, Frame, Mask


class Pipeline:
    """The stages and what they remember from frame to frame."""

    def __init__(self, config: Config, grid: tuple[int, int], times: StageTimes) -> None:
        """`grid` is the (width, height) that the model looks at; flow and masks live on it."""
        self.grid = grid
        self._times = times
        self._fusion = Fusion(config.fusion)
        self.adjust(config)
        self._previous: Yuv444 | None = None
        self._current: Yuv444 | None = None
        self._prepared: flow.Prepared | None = None
        self._flow: BlockFlow | None = None
        self._fusion_ns = 0
        """Spent on the current frame, however many masks were observed for it."""

    def adjust(self, config: Config) -> None:
        """From the next frame on, works as `config` says. What is remembered stays."""
        self._flow_settings = config.flow
        self._matte_settings = config.matte
        self._privacy = config.privacy
        self._max_mask_age_ns = config.privacy.max_mask_age_ms * 1e6
        self._fusion.adjust(config.fusion)

    def spend(self, plan: Plan) -> None:
        """From the next frame on, works as the plan says."""
        self._flow_settings = replace(self._flow_settings, block_px=plan.block_px)
        self._matte_settings = replace(self._matte_settings, quality=plan.matte_quality)

    def reset(self) -> None:
        """Forgets all that was: what comes next has nothing to do with it. There is no mask until the next one
        is observed."""
        self._fusion.reset()
        self._previous = self._prepared = self._flow = None

    def shrink(self, frame: Frame) -> Yuv444:
        """The small picture for the model and for `track`: from the one that the camera made, where that will do."""
        small = frame.lores
        is_enough = small is not None and small.width >= self.grid[0] and small.height >= self.grid[1]
        with self._times.measure("pyramid"):
            return shrink(small if small is not None and is_enough else frame.picture, self.grid)

    def track(self, frame: Frame, small: Yuv444) -> None:
        """Moves on to `frame`: the first mask, carried along the flow, becomes the third mask."""
        previous, self._previous = self._previous, small
        self._current = small
        with self._times.measure("flow"):
            before, self._prepared = self._prepared, flow.prepare(small.y)
            if before is None:
                self._flow = None
            else:
                self._flow = flow.estimate(before, self._prepared, self._flow_settings, hint=self._flow)
        started_ns = time.perf_counter_ns()
        self._fusion.advance(
            None if previous is None else previous.y,
            small.y,
            self._flow,
            frame.seq,
            frame.captured_ns,
            (small.u, small.v),
        )
        self._fusion_ns = time.perf_counter_ns() - started_ns

    def observe(self, mask: Mask) -> None:
        """Takes a second mask: the model's, of the current frame or of an earlier one."""
        started_ns = time.perf_counter_ns()
        self._fusion.observe(mask)
        self._fusion_ns += time.perf_counter_ns() - started_ns

    def target(self, now_ns: int) -> Mask | None:
        """The target mask of the current frame; None when there is none, or none fresh enough to trust."""
        mask = self._fusion.target()
        if mask is None or now_ns - mask.observed_ns > self._max_mask_age_ns:
            return None
        return mask

    def render(self, frame: Frame, background: Background, out: I420, now_ns: int) -> Mask | None:
        """Draws the composited frame into `out` and returns the mask that it used.

        Without a mask viewers see the background only, unless privacy is open.
        """
        self._times.record("fusion", self._fusion_ns)
        mask = self.target(now_ns)
        if mask is not None and mask.seq != frame.seq:
            raise AssertionError(
                f"frame {frame.seq} was about to be blended with the mask of frame {mask.seq}"
            )
        if mask is None and self._privacy.mode == "open":
            _copy(frame.picture, out)
            return None
        if mask is None and background.shows_room:
            slate.draw(out, "no mask yet")
            return None
        with self._times.measure("background"):
            behind = background.render(frame, mask, now_ns)
        with self._times.measure("matte"):
            small = self._current
            alpha = None if mask is None or small is None else matte.refine(mask, small, self._matte_settings)
        with self._times.measure("composite"):
            composite(background.front(frame), alpha, behind, out)
        return mask


def _copy(picture: I420, out: I420) -> None:
    for source, target in zip(picture.planes, out.planes, strict=True):
        np.copyto(target, source)
