"""The controller against simulated machines: no clock, no sleep."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg.budget import Change, Controller, Plan, ladder

INTERVAL_NS = 33_333_333
BUDGET_NS = 40_000_000
COST_MS = {"best": 9.0, "balanced": 5.0, "fast": 2.0}
FLOW_MS = {2: 8.0, 4: 3.0, 8: 1.5}


def work_ms(plan: Plan) -> float:
    """What a frame costs on a machine of normal speed."""
    return 1.0 + COST_MS[plan.matte_quality] + FLOW_MS[plan.block_px] + 1.0 / plan.model_every


@dataclass
class Run:
    """Frames of a simulated machine."""

    changes: list[tuple[float, Change]] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    """When a frame took longer than the budget, in seconds."""


def simulate(
    controller: Controller,
    slowness: Callable[[float], float],
    seconds: float,
    jitter: float = 0.1,
    seed: int = 0,
) -> Run:
    random = np.random.default_rng(seed)
    run = Run()
    for frame in range(int(seconds * 1e9 / INTERVAL_NS)):
        now_s = frame * INTERVAL_NS / 1e9
        took_ms = work_ms(controller.plan) * slowness(now_s) * random.uniform(1 - jitter, 1 + jitter)
        if took_ms * 1e6 > BUDGET_NS:
            run.late.append(now_s)
        change = controller.update(int(took_ms * 1e6), INTERVAL_NS, int(now_s * 1e9))
        if change is not None:
            run.changes.append((now_s, change))
    return run


def controller() -> Controller:
    return Controller(ladder("best", 2), BUDGET_NS)


def test_the_ladder_starts_with_what_is_configured_and_gets_cheaper_rung_by_rung() -> None:
    plans = ladder("best", 2)
    assert plans[0] == Plan("best", 2, 1)
    costs = [work_ms(plan) for plan in plans]
    assert costs == sorted(costs, reverse=True)
    assert len(set(plans)) == len(plans)
    assert ladder("fast", 8)[0] == Plan("fast", 8, 1)


def test_a_machine_with_room_keeps_the_richest_plan() -> None:
    run = simulate(controller(), lambda _: 0.8, 60)
    assert run.changes == []


def test_a_machine_that_slows_down_threefold_is_followed_within_two_seconds() -> None:
    run = simulate(controller(), lambda now_s: 3.0 if now_s >= 10 else 1.0, 60)
    assert all(10 <= late < 12 for late in run.late)
    assert len(run.late) <= 10
    assert all(10 <= at < 12 for at, _ in run.changes), run.changes


def test_it_comes_back_when_the_machine_does() -> None:
    control = controller()
    run = simulate(control, lambda now_s: 3.0 if 10 <= now_s < 20 else 0.8, 90)
    assert control.plan == ladder("best", 2)[0]
    assert all(10 <= late < 12 for late in run.late)


def test_a_plan_that_just_does_not_fit_is_not_tried_for_ever() -> None:
    """The rung above looks affordable whenever the machine is left alone, and never is."""
    control = Controller(ladder("balanced", 4), BUDGET_NS)

    def slowness(now_s: float) -> float:
        return 6.0 if control.plan.matte_quality == "balanced" else 0.5

    run = simulate(control, slowness, 600)
    assert len(run.changes) < 30


def test_every_change_says_why() -> None:
    run = simulate(controller(), lambda _: 3.0, 5)
    assert run.changes
    assert all("ms" in change.reason for _, change in run.changes)
    assert "matte" in str(run.changes[0][1].plan)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.2, 20), st.integers(0, 1000))
def test_whatever_the_machine_the_plans_settle(slowness: float, seed: int) -> None:
    control = controller()
    simulate(control, lambda _: slowness, 30, seed=seed)
    settled = simulate(control, lambda _: slowness, 60, seed=seed + 1)
    assert len(settled.changes) <= 4


@pytest.mark.parametrize("work_ns", [0, 1, 10**12])
def test_the_ends_of_the_ladder_hold(work_ns: int) -> None:
    control = controller()
    for frame in range(2000):
        control.update(work_ns, INTERVAL_NS, frame * INTERVAL_NS)
    assert control.plan in ladder("best", 2)
