"""What is known of pictures that have left, by the clock that it is given."""

import pytest

from edge_seg.departures import MISS_LOG_INTERVAL_NS, Departures
from edge_seg.timings import StageTimes
from edge_seg.types import I420, Frame, Mask

MS = 1_000_000
PICTURE = I420.filled(16, 16, (50, 128, 128))


def frame(seq: int, captured_ms: int) -> Frame:
    return Frame(PICTURE, seq, captured_ms * MS)


def mask(observed_ms: int) -> Mask:
    return Mask(None, 0, 0, observed_ms * MS)  # type: ignore[arg-type]


def test_frames_are_counted_and_their_latency_and_their_masks_age_kept() -> None:
    times = StageTimes()
    left = Departures(times)
    left.frame(frame(0, 100), None, 130 * MS)
    left.frame(frame(1, 133), mask(100), 150 * MS)
    assert (left.frames, left.shown_ns, left.left_ns, left.captured_ns) == (2, 150 * MS, 150 * MS, 133 * MS)
    assert times.samples_ns("latency") == [30 * MS, 17 * MS]
    assert times.samples_ns("mask age") == [33 * MS]


def test_a_card_is_a_picture_and_no_frame() -> None:
    left = Departures(StageTimes())
    left.card(5 * MS)
    assert (left.frames, left.shown_ns, left.left_ns) == (0, None, 5 * MS)


def test_frames_that_leave_too_late_are_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    left = Departures(StageTimes())
    start_ns = 1000 * MS
    for index, offset_ns in enumerate((0, 40 * MS, MISS_LOG_INTERVAL_NS)):
        left.frame(frame(index, 900), None, start_ns + offset_ns)
        left.missed(40, index + 1, start_ns + offset_ns)
    assert [record.misses for record in caplog.records] == [1, 3]  # type: ignore[attr-defined]
    assert (
        caplog.messages[0]
        == "a frame left 100.0 ms after its capture, the budget is 40 ms (1 of 1 frames so far)"
    )
