import threading
import time

from edge_seg.frame_queue import FrameQueue


def test_at_depth_one_the_newest_value_wins_and_the_others_are_counted() -> None:
    queue: FrameQueue[int] = FrameQueue()
    for value in (1, 2, 3):
        queue.put(value)
    assert queue.take(0) == 3
    assert queue.dropped == 2
    assert queue.take(0) is None


def test_a_deeper_queue_keeps_the_order_and_drops_the_oldest() -> None:
    queue: FrameQueue[int] = FrameQueue(3)
    for value in range(5):
        queue.put(value)
    assert len(queue) == 3
    assert [queue.take(0) for _ in range(4)] == [2, 3, 4, None]
    assert queue.dropped == 2


def test_another_depth_keeps_the_newest_in_order() -> None:
    queue: FrameQueue[int] = FrameQueue(4)
    for value in range(4):
        queue.put(value)
    queue.resize(2)
    assert queue.dropped == 2
    queue.put(4)
    assert [queue.take(0) for _ in range(3)] == [3, 4, None]
    queue.resize(3)
    for value in range(5):
        queue.put(value)
    assert [queue.take(0) for _ in range(4)] == [2, 3, 4, None]


def test_take_wakes_up_when_a_value_comes() -> None:
    queue: FrameQueue[str] = FrameQueue()
    threading.Timer(0.05, queue.put, ["late"]).start()
    started = time.monotonic()
    assert queue.take(30) == "late"
    assert time.monotonic() - started < 10
