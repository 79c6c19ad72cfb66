"""Shared copies: one copy a picture, memory used again, never while somebody still reads it."""

import gc

import numpy as np
import pytest

from edge_seg import gstreamer, picture_pool
from edge_seg.picture_pool import PicturePool
from edge_seg.types import I420, Matrix

WIDTH, HEIGHT = 64, 48


def picture(luma: int, width: int = WIDTH, height: int = HEIGHT) -> I420:
    return I420.filled(width, height, (luma, 100, 150))


@pytest.fixture(params=["gstreamer", "plain"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> PicturePool:
    if request.param == "plain":

        def missing() -> None:
            raise gstreamer.GStreamerMissing("not here")

        monkeypatch.setattr(picture_pool.gstreamer, "load", missing)
    return PicturePool(WIDTH, HEIGHT, Matrix.BT709)


def test_a_copy_is_equal_and_stays_when_the_original_is_drawn_over(pool: PicturePool) -> None:
    original = picture(50)
    shared = pool.copy(original)
    original.y[:] = 200
    assert (shared.width, shared.height, shared.matrix) == (WIDTH, HEIGHT, Matrix.BT709)
    assert np.all(shared.y == 50)
    assert np.all(shared.u == 100)
    assert np.all(shared.v == 150)


def test_memory_is_used_again_once_nobody_refers_to_the_picture(pool: PicturePool) -> None:
    for luma in range(100):
        shared = pool.copy(picture(luma))
        assert int(shared.y[0, 0]) == luma
    assert len(pool) <= 2  # the last and the one before overlap by a line
    kept = [pool.copy(picture(luma)) for luma in range(5)]
    assert len(pool) >= 5
    assert [int(one.y[0, 0]) for one in kept] == [0, 1, 2, 3, 4]


def test_views_with_another_layout_are_copied_plane_by_plane() -> None:
    odd = picture(77, 81, 63).even()
    pool = PicturePool(80, 62, Matrix.BT709)
    assert pool.fits(odd)
    shared = pool.copy(odd)
    assert np.all(shared.y == 77)
    assert np.all(shared.v == 150)
    assert not pool.fits(picture(1))


def test_a_buffer_of_it_is_no_copy_and_keeps_the_memory_from_being_used_again() -> None:
    pool = PicturePool(WIDTH, HEIGHT, Matrix.BT709)
    gst = gstreamer.load()
    first = gstreamer.to_buffer(pool.copy(picture(11)), 5)
    second = gstreamer.to_buffer(pool.copy(picture(22)), 6)
    assert len(pool) == 2
    with first.map(gst.MapFlags.READ) as one, second.map(gst.MapFlags.READ) as other:
        assert (one.data[0], other.data[0]) == (11, 22)
    assert (first.pts, second.pts) == (5, 6)
    del first
    assert int(pool.copy(picture(33)).y[0, 0]) == 33
    assert len(pool) == 2


def test_a_picture_outlives_its_pool() -> None:
    pool = PicturePool(WIDTH, HEIGHT, Matrix.BT709)
    luma = pool.copy(picture(99)).y
    del pool
    gc.collect()
    assert np.all(luma == 99)
