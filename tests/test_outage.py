"""What an output's outage is, by the clock that it is given, and what the log says of it."""

import pytest

from edge_seg.errors import SinkError
from edge_seg.outage import Outage

S = 1_000_000_000
UNPLUGGED = SinkError("unplugged")


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.event for record in caplog.records if hasattr(record, "event")]


def test_it_is_back_when_it_has_run_steadily(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "edge_seg.outage")
    outage = Outage("hdmi", steady_s=2.0)
    outage.opened(0)
    outage.lost(UNPLUGGED, 10 * S)
    outage.lost(UNPLUGGED, 11 * S)
    assert outage.lasts
    outage.opened(14 * S)
    assert not outage.settle(15 * S)
    assert outage.cause == "unplugged"
    assert outage.settle(16 * S)
    assert (outage.lasts, outage.cause, outage.restarts) == (False, None, 1)
    assert events(caplog) == ["output_lost", "output_back"]
    assert caplog.messages[-1] == "output hdmi back after 4.0 s"


def test_one_that_is_lost_again_at_once_was_not_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "edge_seg.outage")
    outage = Outage("push", steady_s=2.0)
    outage.opened(0)
    assert outage.settle(5 * S)
    for second in (10, 12, 14):
        outage.lost(UNPLUGGED, second * S)
        outage.opened((second + 1) * S)
        assert not outage.settle(second * S + S // 2)
    assert outage.restarts == 1
    assert events(caplog) == ["output_lost"]


def test_one_that_was_never_there_is_missing_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("hdmi", steady_s=2.0)
    outage.lost(UNPLUGGED, 0)
    assert (outage.has_run, outage.restarts) == (False, 0)
    assert events(caplog) == ["output_missing"]
