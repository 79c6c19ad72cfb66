"""Pictures as they leave for the outputs: how many, when, how old, and too late or not. The clock is an argument."""

from __future__ import annotations

import logging

from edge_seg.timings import FrameRate, StageTimes
from edge_seg.types import Frame, Mask

log = logging.getLogger(__name__)

MISS_LOG_INTERVAL_NS = 60_000_000_000


class Departures:
    """Notes each picture that has left. One writer; readers may look at any time."""

    def __init__(self, times: StageTimes) -> None:
        self._times = times
        self._rate = FrameRate()
        self._next_log_ns = 0
        self.frames = 0
        self.shown_ns: int | None = None
        """When the newest frame left, monotonic; None before the first. Cards are none."""
        self.left_ns: int | None = None
        """When the newest picture left, frame or card."""
        self.captured_ns = 0
        """When the newest frame that left was captured."""

    def frame(self, frame: Frame, mask: Mask | None, now_ns: int) -> None:
        """A frame left, composited by `mask`."""
        self.frames += 1
        self.shown_ns = self.left_ns = now_ns
        self.captured_ns = frame.captured_ns
        self._rate.tick(now_ns)
        self._times.record("latency", now_ns - frame.captured_ns)
        if mask is not None:
            self._times.record("mask age", frame.captured_ns - mask.observed_ns)

    def card(self, now_ns: int) -> None:
        """What stands for a frame where there is none left."""
        self.left_ns = now_ns

    def missed(self, budget_ms: float, misses: int, now_ns: int) -> None:
        """The newest frame left later than its budget allows; so did `misses` so far. Said once a minute."""
        if now_ns < self._next_log_ns:
            return
        self._next_log_ns = now_ns + MISS_LOG_INTERVAL_NS
        log.warning(
            "a frame left %.1f ms after its capture, the budget is %g ms (%d of %d frames so far)",
            (now_ns - self.captured_ns) / 1e6, budget_ms, misses, self.frames,
            extra={"event": "deadline_missed", "misses": misses},
        )  # fmt: skip

    def per_second(self, now_ns: int) -> float:
        """Frames a second that leave, over the newest few."""
        return self._rate.per_second(now_ns)
