import gc
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest

from edge_seg import supervisor as supervisor_module
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.frame_queue import FrameQueue
from edge_seg.sources.base import SourceFormat
from edge_seg.supervisor import Supervisor
from edge_seg.types import I420, Frame, Matrix

PICTURE = I420.filled(16, 16, (16, 128, 128))


class ScriptedSource:
    """Delivers `frames` frames, then does what `end` does."""

    name = "scripted"
    live = True
    format = SourceFormat(16, 16, Fraction(30), Matrix.BT709)

    def __init__(
        self, frames: int, end: Callable[[], None], opens: Callable[[], None] = lambda: None
    ) -> None:
        self._frames, self._end, self._opens = frames, end, opens
        self._seq = 0
        self.closed = False

    def open(self) -> None:
        self._opens()

    def read(self, timeout_ns: int) -> Frame | None:
        if self._seq < self._frames:
            self._seq += 1
            return Frame(PICTURE, self._seq - 1, time.monotonic_ns())
        self._end()
        return None

    def close(self) -> None:
        self.closed = True


def unplug() -> None:
    raise SourceLost("unplugged")


def stall() -> None:
    time.sleep(0.005)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_RETRY_S", 0.01)


class Recorder(FrameQueue[Frame]):
    """A queue that remembers everything put into it, and says when `wanted` frames have come."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.seqs: list[int] = []
        self.complete = threading.Event()
        self._wanted = wanted

    def put(self, value: Frame) -> None:
        self.seqs.append(value.seq)
        if len(self.seqs) == self._wanted:
            self.complete.set()


def run(
    sources: Iterator[ScriptedSource], wanted: int, stale_ms: int = 100_000
) -> tuple[Recorder, Supervisor]:
    slot = Recorder(wanted)
    supervisor = Supervisor(lambda: next(sources), slot, stale_ms)
    supervisor.start()
    assert slot.complete.wait(20)
    assert supervisor.stop(5)
    return slot, supervisor


def test_a_lost_source_is_opened_again_and_sequence_numbers_go_on() -> None:
    sources = [ScriptedSource(3, unplug), ScriptedSource(0, unplug), ScriptedSource(2, stall)]
    slot, supervisor = run(iter(sources), wanted=5)
    assert slot.seqs == [0, 1, 2, 3, 4]
    assert all(source.closed for source in sources)
    assert supervisor.fatal is None


def test_a_source_that_stalls_is_lost_after_stale_ms() -> None:
    sources = [ScriptedSource(1, stall), ScriptedSource(1, stall)]
    slot, _ = run(iter(sources), wanted=2, stale_ms=50)
    assert slot.seqs == [0, 1]
    assert sources[0].closed


def test_a_first_open_that_no_retry_will_mend_is_fatal() -> None:
    def refuse() -> None:
        raise ConfigError("no such file")

    supervisor = Supervisor(lambda: ScriptedSource(0, stall, refuse), FrameQueue(), 1000)
    supervisor.start()
    supervisor._thread.join(10)
    assert str(supervisor.fatal) == "no such file"


def test_a_file_that_vanishes_later_is_waited_for() -> None:
    def refuse() -> None:
        raise ConfigError("no such file")

    sources = [ScriptedSource(1, unplug), ScriptedSource(0, stall, refuse), ScriptedSource(1, stall)]
    slot, supervisor = run(iter(sources), wanted=2)
    assert slot.seqs == [0, 1]
    assert supervisor.fatal is None


def hang_until(release: threading.Event) -> Callable[[], None]:
    """A driver's call that does not come back."""
    return lambda: release.wait(60) and None


def test_a_read_that_hangs_is_left_behind_and_the_source_opened_again() -> None:
    release = threading.Event()
    sources = [ScriptedSource(2, hang_until(release)), ScriptedSource(2, stall)]
    try:
        slot, _ = run(iter(sources), wanted=4, stale_ms=50)
        assert slot.seqs == [0, 1, 2, 3]
    finally:
        release.set()


def test_an_opening_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "OPEN_DEADLINE_S", 0.05)
    release = threading.Event()
    sources = [ScriptedSource(1, stall, hang_until(release)), ScriptedSource(2, stall)]
    try:
        slot, _ = run(iter(sources), wanted=2)
        assert slot.seqs == [0, 1]
    finally:
        release.set()


def test_a_source_that_opens_after_it_was_left_behind_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "OPEN_DEADLINE_S", 0.05)
    release, closed = threading.Event(), threading.Event()
    late = ScriptedSource(1, stall, hang_until(release))
    run(iter([late, ScriptedSource(1, stall)]), wanted=1)
    late.close = closed.set  # type: ignore[method-assign]
    release.set()
    assert closed.wait(20)


def test_a_closing_that_hangs_does_not_stop_the_next_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "CLOSE_DEADLINE_S", 0.05)
    release = threading.Event()
    first = ScriptedSource(1, unplug)
    first.close = hang_until(release)  # type: ignore[method-assign]
    try:
        slot, _ = run(iter([first, ScriptedSource(1, stall)]), wanted=2)
        assert slot.seqs == [0, 1]
    finally:
        release.set()


def test_with_too_many_hanging_drivers_no_more_are_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "READ_TIMEOUT_NS", 1_000_000)
    release = threading.Event()
    opened: list[ScriptedSource] = []

    def build() -> ScriptedSource:
        opened.append(ScriptedSource(1, hang_until(release)))
        return opened[-1]

    supervisor = Supervisor(build, FrameQueue(), stale_ms=20)
    supervisor.start()
    try:
        for _ in range(2000):
            if "only unplugging the camera" in caplog.text:
                break
            time.sleep(0.01)
        assert len(opened) == supervisor_module.MOST_LEFT_BEHIND
    finally:
        release.set()
        assert supervisor.stop(10)


def test_a_defect_in_a_source_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))

    def fail() -> None:
        raise ZeroDivisionError

    slot, _ = run(iter([ScriptedSource(1, fail), ScriptedSource(1, stall)]), wanted=2)
    assert slot.seqs == [0, 1]
    assert reported == [ZeroDivisionError]


def test_each_outage_is_logged_once_with_its_cause_and_its_end_with_how_long_it_took(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "edge_seg.supervisor")
    sources = [
        ScriptedSource(1, unplug),
        *(ScriptedSource(0, unplug) for _ in range(4)),
        ScriptedSource(1, stall),
    ]
    _, supervisor = run(iter(sources), wanted=2)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].endswith(": unplugged")
    assert re.fullmatch(r"source back after \d+\.\d s: scripted", lines[1])
    assert supervisor.outages == 1
    assert supervisor.cause is None


def test_a_stuck_driver_is_not_back_before_it_shows_another_picture(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "edge_seg.supervisor")
    stuck = I420.filled(64, 64, (100, 128, 128))
    stuck.y[:32] = 50

    class Frozen(ScriptedSource):
        def __init__(self, picture: I420) -> None:
            super().__init__(10**6, stall)
            self._picture = picture

        def read(self, timeout_ns: int) -> Frame | None:
            time.sleep(0.001)
            self._seq += 1
            return Frame(self._picture, self._seq - 1, time.monotonic_ns())

    other = I420.filled(64, 64, (101, 128, 128))
    sources = iter([Frozen(stuck), Frozen(stuck), Frozen(stuck), Frozen(other)])
    queue: FrameQueue[Frame] = FrameQueue()
    supervisor = Supervisor(lambda: next(sources), queue, stale_ms=60, may_repeat=False)
    supervisor.start()
    for _ in range(2000):
        frame = queue.take(0.01)
        if frame is not None and frame.picture is other:
            break
    assert supervisor.stop(5)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2, lines
    assert "the same picture for" in lines[0]
    assert "source back" in lines[1]


def test_nothing_refers_to_a_lost_source_any_more() -> None:
    # A device stays open as long as something does, and comes back under another name.
    first = ScriptedSource(1, unplug)
    lost = weakref.ref(first)
    sources = [first, ScriptedSource(10**6, stall)]
    del first
    gc.disable()  # what only the collector frees would be freed at some time
    try:
        slot = Recorder(2)
        supervisor = Supervisor(lambda: sources.pop(0), slot, 100_000)
        supervisor.start()
        assert slot.complete.wait(20)
        for _ in range(500):
            if lost() is None:
                break
            time.sleep(0.01)
        assert lost() is None
        assert supervisor.stop(5)
    finally:
        gc.enable()


def test_another_source_takes_over_at_once_and_sequence_numbers_go_on() -> None:
    old, new = ScriptedSource(3, stall), ScriptedSource(3, stall)
    slot = Recorder(6)
    supervisor = Supervisor(lambda: old, slot, 100_000)
    supervisor.start()
    while len(slot.seqs) < 3:
        time.sleep(0.001)
    assert supervisor.break_seq == 0
    supervisor.renew(lambda: new, 100_000, True)
    assert slot.complete.wait(20)
    assert supervisor.stop(5)
    assert slot.seqs == [0, 1, 2, 3, 4, 5]
    assert supervisor.break_seq == 3
    assert supervisor.outages == 0
    assert old.closed


def test_another_source_that_cannot_be_opened_is_tried_again_and_does_not_end_the_daemon() -> None:
    def refuse() -> None:
        raise ConfigError("no such device")

    tries = iter(
        [ScriptedSource(0, stall, refuse), ScriptedSource(0, stall, refuse), ScriptedSource(1, stall)]
    )
    slot = Recorder(3)
    first = ScriptedSource(2, stall)
    supervisor = Supervisor(lambda: first, slot, 100_000)
    supervisor.start()
    while len(slot.seqs) < 2:
        time.sleep(0.001)
    supervisor.renew(lambda: next(tries), 100_000, True)
    assert slot.complete.wait(20)
    assert supervisor.fatal is None
    assert supervisor.stop(5)


def test_other_terms_of_loss_hold_at_once() -> None:
    sources = iter([ScriptedSource(1, stall), ScriptedSource(1, stall)])
    slot = Recorder(2)
    supervisor = Supervisor(lambda: next(sources), slot, 100_000)
    supervisor.start()
    while not slot.seqs:
        time.sleep(0.001)
    supervisor.judge(120, True)
    assert slot.complete.wait(20)
    assert supervisor.outages == 1
    assert supervisor.stop(5)


def test_sources_that_hang_while_they_are_opened_are_replaced_but_not_for_ever() -> None:
    hangs = threading.Event()
    opened: list[ScriptedSource] = []

    def hang() -> ScriptedSource:
        opened.append(ScriptedSource(0, stall, lambda: bool(hangs.wait(30))))
        return opened[-1]

    supervisor = Supervisor(hang, Recorder(1), 100_000)
    supervisor.start()
    for _ in range(20):
        supervisor.renew(hang, 100_000, True)
        time.sleep(0.3 if len(opened) < 6 else 0.01)
    assert 3 < len(opened) <= 2 * supervisor_module.MOST_LEFT_BEHIND
    hangs.set()
    assert supervisor.stop(5)
