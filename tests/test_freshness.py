import numpy as np
import pytest

from edge_seg.freshness import Freshness, is_flat, same
from edge_seg.types import I420

MS = 1_000_000
STALE = 100 * MS


def picture(seed: int) -> I420:
    out = I420.allocate(64, 64)
    rng = np.random.default_rng(seed)
    for plane in out.planes:
        plane[:] = rng.integers(16, 236, plane.shape)
    return out


def test_a_source_is_lost_when_no_frame_came_for_longer_than_stale() -> None:
    fresh = Freshness(STALE, may_repeat=True, now_ns=0)
    fresh.saw(picture(0), 50 * MS)
    assert fresh.problem(150 * MS) is None
    assert fresh.next_look_ns(60 * MS) == 91 * MS
    assert fresh.problem(151 * MS) == "no frame for 101 ms"


@pytest.mark.parametrize("may_repeat", [True, False])
def test_a_picture_that_repeats_is_a_loss_unless_it_may(may_repeat: bool) -> None:
    fresh = Freshness(STALE, may_repeat, now_ns=0)
    for at in range(0, 151, 10):
        assert fresh.problem(at * MS) is None or at > 100
        fresh.saw(picture(7), at * MS)
    problem = fresh.problem(151 * MS)
    assert problem is None if may_repeat else problem is not None and "same picture for 151 ms" in problem


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_one_pixel_that_changes_is_a_new_picture(plane: int) -> None:
    fresh = Freshness(STALE, may_repeat=False, now_ns=0)
    for index, at in enumerate(range(0, 500, 10)):
        frame = picture(7)
        frame.planes[plane][17, 5] = index
        fresh.saw(frame, at * MS)
        assert fresh.problem(at * MS) is None


def test_a_slow_camera_is_not_stuck_for_a_frame_that_came_twice() -> None:
    fresh = Freshness(STALE, may_repeat=False, now_ns=0)
    fresh.saw(picture(1), 0)
    fresh.saw(picture(1), 90 * MS)
    fresh.saw(picture(1), 180 * MS)
    assert fresh.problem(181 * MS) is None


def test_a_covered_lens_may_repeat() -> None:
    fresh = Freshness(STALE, may_repeat=False, now_ns=0)
    for at in range(0, 1000, 10):
        fresh.saw(I420.filled(64, 64, (16, 128, 128)), at * MS)
        assert fresh.problem(at * MS) is None
    assert is_flat(I420.filled(64, 64, (16, 128, 128)))
    assert not is_flat(picture(0))


def test_pictures_of_two_sizes_are_not_the_same() -> None:
    assert not same(I420.filled(64, 64, (16, 1, 1)), I420.filled(64, 32, (16, 1, 1)))
    assert same(picture(3), picture(3))
