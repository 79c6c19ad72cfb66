import threading
import time
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
