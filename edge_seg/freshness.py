"""Is what a source delivers new? The clock is an argument."""

from __future__ import annotations

import numpy as np

from edge_seg.types import I420

SAMPLE_ROWS = 32
"""Every so many rows are compared first: two pictures of a sensor differ there, by its noise."""
FEWEST_REPEATS = 3
FLAT_RANGE = 4
"""A picture whose luma spans no more code values is that of a covered lens, which may repeat."""


class Freshness:
    """When the last frame came, and when the last one that was not the same as the one before."""

    def __init__(self, stale_ns: int, may_repeat: bool, now_ns: int) -> None:
        self._stale_ns = stale_ns
        self._may_repeat = may_repeat
        self._picture: I420 | None = None
        self._repeats = 0
        self.last_ns = now_ns
        self.changed_ns = now_ns

    def saw(self, picture: I420, now_ns: int) -> None:
        """A frame has come."""
        self.last_ns = now_ns
        if self._may_repeat:
            return
        previous, self._picture = self._picture, picture
        if previous is None or not same(previous, picture) or is_flat(picture):
            self._repeats = 0
            self.changed_ns = now_ns
        else:
            self._repeats += 1

    @property
    def stuck_at(self) -> I420 | None:
        """The picture that repeats, when that is the problem."""
        stuck = self._repeats >= FEWEST_REPEATS and self.last_ns - self.changed_ns > self._stale_ns // 2
        return self._picture if stuck else None

    def problem(self, now_ns: int) -> str | None:
        """Why the source counts as lost, None while it does not."""
        if now_ns - self.last_ns > self._stale_ns:
            return f"no frame for {(now_ns - self.last_ns) / 1e6:.0f} ms"
        if self._repeats >= FEWEST_REPEATS and now_ns - self.changed_ns > self._stale_ns:
            return (
                f"the same picture for {(now_ns - self.changed_ns) / 1e6:.0f} ms, bit for bit: the driver is stuck "
                "(source.repeats: shown, where it is not)"
            )
        return None

    def next_look_ns(self, now_ns: int) -> int:
        """How long until the answer can change by time alone."""
        due_ns = self.last_ns + self._stale_ns
        if self._repeats >= FEWEST_REPEATS:
            due_ns = min(due_ns, max(self.changed_ns + self._stale_ns, now_ns))
        return max(0, due_ns - now_ns) + 1_000_000


def same(a: I420, b: I420) -> bool:
    """Whether two pictures are the same in every pixel."""
    if a.y.shape != b.y.shape or not np.array_equal(a.y[::SAMPLE_ROWS], b.y[::SAMPLE_ROWS]):
        return False
    return all(np.array_equal(p, q) for p, q in zip(a.planes, b.planes, strict=True))


def is_flat(picture: I420) -> bool:
    """Whether there is nothing in the picture to change."""
    rows = picture.y[::SAMPLE_ROWS]
    return int(rows.max()) - int(rows.min()) <= FLAT_RANGE
