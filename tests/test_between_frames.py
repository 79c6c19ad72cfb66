import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edge_seg import between_frames
from edge_seg.between_frames import BetweenFrames
from edge_seg.errors import ConfigError, EdgeSegError


@contextmanager
def looping(between: BetweenFrames) -> Iterator[threading.Thread]:
    """A frame loop without frames."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(0.002):
            between.work_off()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


def test_work_is_done_on_the_loops_thread_and_its_result_comes_back() -> None:
    between = BetweenFrames()
    with looping(between) as loop:
        assert between.do(threading.current_thread) is loop
        assert [between.do(lambda number=number: number * 2) for number in range(5)] == [0, 2, 4, 6, 8]  # type: ignore[misc]


def test_what_it_raises_is_the_callers_and_the_loop_goes_on() -> None:
    def refuse() -> None:
        raise ConfigError("no")

    between = BetweenFrames()
    with looping(between):
        with pytest.raises(ConfigError, match="no"):
            between.do(refuse)
        assert between.do(lambda: 1) == 1


def test_work_that_nobody_came_to_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between_frames, "PATIENCE_S", 0.05)
    between = BetweenFrames()
    done: list[int] = []
    with pytest.raises(EdgeSegError, match="did not come to it"):
        between.do(lambda: done.append(1))
    between.work_off()
    assert done == []


def test_a_loop_that_waits_is_told_that_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between_frames, "OVERDUE_NS", 20_000_000)
    between = BetweenFrames()
    assert not between.is_overdue()
    caller = threading.Thread(target=between.do, args=(lambda: None,))
    caller.start()
    deadline = time.monotonic() + 10
    while not between.is_overdue():
        assert time.monotonic() < deadline
    between.work_off()
    caller.join()
    assert not between.is_overdue()


def test_after_the_end_nobody_waits() -> None:
    between = BetweenFrames()
    between.close()
    with pytest.raises(EdgeSegError, match="stopping"):
        between.do(lambda: None)


def test_work_handed_over_while_the_loop_looks_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(between_frames, "PATIENCE_S", 2.0)
    between = BetweenFrames()
    waiting = between._waiting

    class Meeting:
        """The loop comes by in the moments before and after something is put in."""

        get_nowait = staticmethod(waiting.get_nowait)

        @staticmethod
        def put(item: Any) -> None:
            between.work_off()
            waiting.put(item)
            between.work_off()

    monkeypatch.setattr(between, "_waiting", Meeting)
    with looping(between):
        assert between.do(lambda: 1) == 1
