from __future__ import annotations

import threading

import numpy as np
import pytest

from edge_seg import gstreamer
from edge_seg.errors import SourceLost
from edge_seg.sources.bounded import bounded
from edge_seg.sources.gst import compress_range, copy_picture
from edge_seg.types import I420, Matrix

WIDTH, HEIGHT = 21, 15


def padded_buffer(
    strides: tuple[int, int, int], rows: tuple[int, int, int]
) -> tuple[object, list[np.ndarray]]:
    """A Gst.Buffer whose video meta gives other strides and offsets than I420 has by default."""
    gst, gst_video = gstreamer.load("GstVideo")
    sizes = [stride * row for stride, row in zip(strides, rows, strict=True)]
    offsets = [7, 7 + sizes[0], 7 + sizes[0] + sizes[1]]
    memory = np.random.default_rng(0).integers(0, 256, 7 + sum(sizes)).astype(np.uint8)
    buffer = gst.Buffer.new_allocate(None, memory.size, None)
    buffer.fill(0, memory.tobytes())
    gst_video.buffer_add_video_meta_full(
        buffer, 0, gst_video.VideoFormat.I420, WIDTH, HEIGHT, 3, [*offsets, 0], [*strides, 0]
    )
    shapes = ((HEIGHT, WIDTH), (HEIGHT // 2 + 1, WIDTH // 2 + 1), (HEIGHT // 2 + 1, WIDTH // 2 + 1))
    planes = [
        memory[offset : offset + stride * row].reshape(row, stride)[: shape[0], : shape[1]]
        for offset, stride, row, shape in zip(offsets, strides, rows, shapes, strict=True)
    ]
    return buffer, planes


def test_strides_and_offsets_of_a_buffer_are_followed() -> None:
    pytest.importorskip("gi")
    buffer, planes = padded_buffer((64, 32, 48), (HEIGHT, 8, 9))
    picture = copy_picture(buffer, WIDTH, HEIGHT, Matrix.BT601)
    for got, expected in zip(picture.planes, planes, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_copy_does_not_change_with_the_buffer() -> None:
    gst = pytest.importorskip("gi") and gstreamer.load()
    source = I420.filled(WIDTH, HEIGHT, (50, 60, 70))
    buffer = gstreamer.to_buffer(source, 0)
    picture = copy_picture(buffer, WIDTH, HEIGHT, Matrix.BT709)
    with buffer.map(gst.MapFlags.WRITE) as mapped:
        np.frombuffer(mapped.data, np.uint8)[:] = 0
    for plane, value in zip(picture.planes, (50, 60, 70), strict=True):
        assert (plane == value).all()


@pytest.mark.parametrize(("width", "height"), [(64, 32), (30, 18)])
def test_a_buffer_may_be_longer_than_its_picture(width: int, height: int) -> None:
    """As v4l2loopback's are, whose lengths are whole pages."""
    gst, gst_video = pytest.importorskip("gi") and gstreamer.load("GstVideo")
    info = gst_video.VideoInfo.new()
    info.set_format(gst_video.VideoFormat.I420, width, height)
    memory = np.random.default_rng(0).integers(0, 256, 4096).astype(np.uint8)
    buffer = gst.Buffer.new_allocate(None, memory.size, None)
    buffer.fill(0, memory.tobytes())
    picture = copy_picture(buffer, width, height, Matrix.BT601)
    for plane, offset, stride in zip(picture.planes, info.offset, info.stride, strict=False):
        expected = memory[offset : offset + stride * plane.shape[0]].reshape(-1, stride)[:, : plane.shape[1]]
        np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("size", [10, 1307])
def test_a_buffer_that_is_too_small_is_an_error_not_a_crash(size: int) -> None:
    gst = pytest.importorskip("gi") and gstreamer.load()
    with pytest.raises(SourceLost):
        copy_picture(gst.Buffer.new_allocate(None, size, None), 37, 23, Matrix.BT709)


def test_a_layout_that_points_outside_of_its_buffer_is_an_error() -> None:
    gst, gst_video = pytest.importorskip("gi") and gstreamer.load("GstVideo")
    buffer = gst.Buffer.new_allocate(None, I420.buffer_size(32, 16), None)
    gst_video.buffer_add_video_meta_full(
        buffer, 0, gst_video.VideoFormat.I420, 32, 16, 3, [0, 512, 640, 0], [32, 16, 16, 0]
    )
    with pytest.raises(SourceLost):
        copy_picture(buffer, 64, 32, Matrix.BT709)


def test_full_range_becomes_limited_range() -> None:
    picture = I420.filled(WIDTH, HEIGHT, (255, 0, 128))
    compress_range(picture)
    assert [int(plane[0, 0]) for plane in picture.planes] == [235, 16, 128]
    picture = I420.filled(WIDTH, HEIGHT, (0, 255, 1))
    compress_range(picture)
    assert [int(plane[0, 0]) for plane in picture.planes] == [16, 240, 16]


def test_a_call_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    try:
        assert not bounded(lambda: release.wait(60), 0.01)
    finally:
        release.set()
    assert bounded(lambda: None, 10)
