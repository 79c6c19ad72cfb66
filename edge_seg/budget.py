"""What to spend on a frame, so that it leaves within its budget: pure, the clock an argument.

The plans form a ladder from what is configured down to the least that still follows the person. Work that does
not fit steps down at once; there is a way up only after a calm while, and only onto a rung whose cost, as
remembered and scaled to how fast the machine is now, leaves room. So a machine that slows down (heat) is followed
within a few frames, and one that stands between two rungs does not swing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

MatteQuality = Literal["fast", "balanced", "best"]
BlockPx = Literal[2, 4, 8]

WINDOW = 15
"""Frames that a decision looks back on: half a second at 30 frames a second."""

QUICK = 3
"""So many frames in a row past the limit are enough to step down."""

OFTEN = 11
"""More than this many of WINDOW frames within the limit is enough to stay."""

HEADROOM = 0.8
"""Share of the budget, and of the time from frame to frame, that our own work may take."""

WAY_UP = 0.6
"""Share of the limit that the next richer plan may be expected to cost."""

CALM_NS = 3_000_000_000
"""So long without a step down before a step up is tried; doubled each time that turns out to be wrong."""

LONGEST_CALM_NS = 120_000_000_000

REGRET_NS = 5_000_000_000
"""A step down so soon after a step up says that the step up was wrong."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one frame gets."""

    matte_quality: MatteQuality
    block_px: BlockPx
    """Of the flow: larger blocks cost less."""
    model_every: int
    """The model looks at every so many frames, at most."""

    def __str__(self) -> str:
        rate = "every frame" if self.model_every == 1 else f"every {self.model_every}. frame"
        return f"matte {self.matte_quality}, flow blocks of {self.block_px} px, the model at {rate}"


def ladder(matte_quality: MatteQuality, block_px: BlockPx) -> tuple[Plan, ...]:
    """From the configured plan down: first what is seen least."""
    qualities: tuple[MatteQuality, ...] = ("best", "balanced", "fast")
    plans = [Plan(quality, block_px, 1) for quality in qualities[qualities.index(matte_quality) :]]
    sizes: tuple[BlockPx, ...] = (2, 4, 8)
    plans += [Plan("fast", coarser, 1) for coarser in sizes if coarser > block_px]
    plans += [Plan("fast", 8, every) for every in (2, 4)]
    return tuple(plans)


@dataclass(frozen=True, slots=True)
class Change:
    """A new plan and why."""

    plan: Plan
    reason: str


class Controller:
    """Chooses the plan. Fed once a frame; remembers what each plan cost."""

    def __init__(self, plans: Sequence[Plan], budget_ns: int) -> None:
        self._plans = tuple(plans)
        self._budget_ns = budget_ns
        self._rung = 0
        self._work: deque[int] = deque(maxlen=WINDOW)
        self._left_ns: float | None = None
        """What the plan above cost when it was left, until it is known what the one below costs."""
        self._ratio: dict[int, float] = {}
        """Rung -> its cost over that of the rung below, measured right before and after a step down."""
        self._calm_ns = CALM_NS
        self._changed_ns: int | None = None
        self._stepped_up_ns: int | None = None

    @property
    def plan(self) -> Plan:
        return self._plans[self._rung]

    def update(self, work_ns: int, interval_ns: int, now_ns: int) -> Change | None:
        """One frame took `work_ns` of our own work, waiting for the model not counted; frames come every
        `interval_ns`. Returns the change of plan, if there is one."""
        if self._changed_ns is None:
            self._changed_ns = now_ns
        self._work.append(work_ns)
        limit_ns = HEADROOM * min(self._budget_ns, interval_ns)
        recent = list(self._work)
        if self._left_ns is not None and len(recent) == WINDOW:
            self._ratio[self._rung - 1] = max(1.0, self._left_ns / median(recent))
            self._left_ns = None
        if self._is_too_much(recent, limit_ns):
            return self._step_down(recent, limit_ns, now_ns)
        if len(recent) == WINDOW and now_ns - self._changed_ns >= self._calm_ns:
            return self._step_up(recent, limit_ns, now_ns)
        return None

    def _is_too_much(self, recent: list[int], limit_ns: float) -> bool:
        if len(recent) >= QUICK and min(recent[-QUICK:]) > limit_ns:
            return True
        return len(recent) == WINDOW and sorted(recent)[OFTEN] > limit_ns

    def _step_down(self, recent: list[int], limit_ns: float, now_ns: int) -> Change | None:
        if self._rung == len(self._plans) - 1:
            return None
        if self._stepped_up_ns is not None and now_ns - self._stepped_up_ns < REGRET_NS:
            self._calm_ns = min(LONGEST_CALM_NS, 2 * self._calm_ns)
        typical_ns = median(recent[-QUICK:])
        self._left_ns = typical_ns
        reason = f"a frame takes {typical_ns / 1e6:.1f} ms, {limit_ns / 1e6:.1f} ms are there"
        return self._go(self._rung + 1, reason, now_ns)

    def _step_up(self, recent: list[int], limit_ns: float, now_ns: int) -> Change | None:
        if self._rung == 0:
            return None
        typical_ns = median(recent)
        expected_ns = typical_ns * self._ratio.get(self._rung - 1, 1.0)
        if expected_ns > WAY_UP * limit_ns:
            return None
        self._stepped_up_ns = now_ns
        reason = f"a frame takes {typical_ns / 1e6:.1f} ms, there is room for the {expected_ns / 1e6:.1f} ms of more"
        return self._go(self._rung - 1, reason, now_ns)

    def _go(self, rung: int, reason: str, now_ns: int) -> Change:
        self._rung = rung
        self._changed_ns = now_ns
        self._work.clear()
        return Change(self.plan, reason)
