import threading
import time

from edge_seg.slot import LatestSlot


def test_the_newest_value_wins_and_the_others_are_counted() -> None:
    slot: LatestSlot[int] = LatestSlot()
    for value in (1, 2, 3):
        slot.put(value)
    assert slot.take(0) == 3
    assert slot.dropped == 2
    assert slot.take(0) is None


def test_take_wakes_up_when_a_value_comes() -> None:
    slot: LatestSlot[str] = LatestSlot()
    threading.Timer(0.05, slot.put, ["late"]).start()
    started = time.monotonic()
    assert slot.take(30) == "late"
    assert time.monotonic() - started < 10
