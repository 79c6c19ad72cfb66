"""When a frame has to leave, and whether it did: pure, the clock an argument."""

from __future__ import annotations

from edge_seg.budget import Change, Controller

HAND_OVER_MARGIN_NS = 3_000_000
"""Kept free between the planned hand-over of a frame and its deadline."""

DEFAULT_INTERVAL_NS = 33_333_333


class Pacer:
    """Plans the deadline of each frame and learns from how the last ones went."""

    def __init__(self, budget_ns: int, controller: Controller) -> None:
        self._budget_ns = budget_ns
        self._controller = controller
        self._tail_ns = 0
        self._interval_ns = float(DEFAULT_INTERVAL_NS)
        self._last_captured_ns: int | None = None
        self.misses = 0

    def adjust(self, budget_ns: int, controller: Controller) -> None:
        """Another budget; what was learnt of this machine stays."""
        self._budget_ns, self._controller = budget_ns, controller

    def mask_deadline_ns(self, captured_ns: int) -> int:
        """Until when a frame may wait for its mask, so that what comes after still fits into the budget."""
        return captured_ns + self._budget_ns - self._tail_ns - HAND_OVER_MARGIN_NS

    def left(
        self, captured_ns: int, tail_started_ns: int, work_ns: int, now_ns: int
    ) -> tuple[bool, Change | None]:
        """A frame left at `now_ns`. From `tail_started_ns` on it waited for nothing more; `work_ns` is all our
        own work on it. Returns whether it was in time, and the new plan, if there is one."""
        # A slower machine is followed at once, a faster one slowly.
        self._tail_ns = max(now_ns - tail_started_ns, self._tail_ns * 31 // 32)
        if self._last_captured_ns is not None and captured_ns > self._last_captured_ns:
            self._interval_ns += (captured_ns - self._last_captured_ns - self._interval_ns) / 16
        self._last_captured_ns = captured_ns
        in_time = now_ns - captured_ns <= self._budget_ns
        self.misses += not in_time
        return in_time, self._controller.update(work_ns, int(self._interval_ns), now_ns)
