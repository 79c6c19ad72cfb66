from dataclasses import replace

import pytest

from edge_seg.budget import Plan
from edge_seg.health import unhealthy, unready
from edge_seg.outputs import OutputStatus
from edge_seg.status import Status

NOW_NS = 100_000_000_000
STALE_MS = 2000


def output(name: str, state: str, cause: str | None = None) -> OutputStatus:
    return OutputStatus(
        name=name, kind=name, state=state, cause=cause, frames=0, dropped=0, restarts=0, last_left_ns=None,
        viewers=None, encoder=None,
    )  # type: ignore[arg-type]  # fmt: skip


WELL = Status(
    frames_captured=1, frames_dropped=0, frames_out=1, frame_rate=30.0, shown_ns=NOW_NS - 30_000_000,
    left_ns=NOW_NS - 30_000_000, source="camera", source_cause=None, source_outages=0, model="m", model_failing=False,
    misses=0, model_runs=1, mask_age_ms=0.0, mask_age_frames=0, plan=Plan("balanced", 4, 1), plan_changes=0,
    outputs=(output("rtsp", "running"),),
)  # fmt: skip
OLD_NS = NOW_NS - 5_000_000_000


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (WELL, None),
        (replace(WELL, shown_ns=None), "starting: no frame has left yet"),
        (
            replace(WELL, shown_ns=None, source_cause="/dev/video0: busy\nmore"),
            "no source: /dev/video0: busy",
        ),
        (replace(WELL, shown_ns=OLD_NS), "the newest frame left 5.0 s ago"),
        (replace(WELL, shown_ns=OLD_NS, source_cause="unplugged"), "no source: unplugged"),
        (replace(WELL, outputs=(output("hdmi", "retrying", "no monitor"), output("rtsp", "running"))), None),
        (
            replace(WELL, outputs=(output("hdmi", "retrying", "no monitor"),)),
            "no output runs: hdmi: no monitor",
        ),
        (replace(WELL, outputs=(output("rtsp", "starting"),)), "no output runs: rtsp: starting"),
    ],
)
def test_health_is_a_fresh_frame_that_leaves_or_the_reason_in_one_line(
    status: Status, reason: str | None
) -> None:
    assert unhealthy(status, STALE_MS, NOW_NS) == reason
    assert unready(status, STALE_MS, NOW_NS) == reason


def test_a_source_that_may_be_slow_is_given_its_time() -> None:
    slow = replace(WELL, shown_ns=OLD_NS)
    assert unhealthy(slow, 10_000, NOW_NS) is None


def test_a_model_that_fails_is_well_but_not_ready() -> None:
    failing = replace(WELL, model_failing=True, mask_age_ms=None, mask_age_frames=None)
    assert unhealthy(failing, STALE_MS, NOW_NS) is None
    assert "background only" in (unready(failing, STALE_MS, NOW_NS) or "")
