import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_seg import gstreamer
from edge_seg.types import I420, Matrix

sides = st.integers(1, 67)


@given(sides, sides)
def test_layout_is_gstreamers(width: int, height: int) -> None:
    pytest.importorskip("gi")
    _, video = gstreamer.load("GstVideo")
    info = video.VideoInfo.new()
    info.set_format(video.VideoFormat.I420, width, height)
    picture = I420.allocate(width, height)
    assert picture.buffer.size == info.size
    start = picture.buffer.ctypes.data
    for index, plane in enumerate(picture.planes):
        assert plane.ctypes.data - start == info.offset[index]
        assert plane.shape[0] == 1 or plane.strides[0] == info.stride[index]
    assert picture.u.shape == picture.v.shape == ((height + 1) // 2, (width + 1) // 2)


def test_filled_sets_every_pixel() -> None:
    picture = I420.filled(5, 3, (17, 100, 200), Matrix.BT601)
    assert [set(np.unique(plane)) for plane in picture.planes] == [{17}, {100}, {200}]
    assert picture.matrix is Matrix.BT601


def test_wrap_refuses_a_buffer_of_another_size() -> None:
    with pytest.raises(ValueError, match="4x4 I420 picture needs 32 bytes"):
        I420.wrap(np.zeros(23, np.uint8), 4, 4)
    with pytest.raises(ValueError, match="at least 1x1"):
        I420.allocate(0, 4)


@given(st.integers(2, 33), st.integers(2, 33))
def test_even_cuts_the_odd_column_and_row_without_a_copy(width: int, height: int) -> None:
    picture = I420.allocate(width, height)
    even = picture.even()
    assert (even.width, even.height) == (width // 2 * 2, height // 2 * 2)
    assert even.u.shape == even.v.shape == (height // 2, width // 2)
    assert all(np.shares_memory(a, b) for a, b in zip(even.planes, picture.planes, strict=True))
