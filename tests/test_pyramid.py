"""The small picture: what it shows, where it shows it, whatever the shape and stride of the planes."""

import platform

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_seg import pyramid
from edge_seg.pyramid import shrink, shrink_plane, shrink_plane_reference
from edge_seg.types import I420, U8, Matrix

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def soft_noise(width: int, height: int) -> U8:
    """Like a photograph, it has most of its energy in low frequencies."""
    noise = np.random.default_rng(0).integers(0, 256, (18, 32), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@given(source=SIZES, target=SIZES, value=st.integers(0, 255))
def test_a_flat_plane_stays_flat(source: tuple[int, int], target: tuple[int, int], value: int) -> None:
    plane = np.full(source, value, np.uint8)
    small = shrink_plane(plane, target)
    assert small.shape == (target[1], target[0])
    assert (small == value).all()


@pytest.mark.parametrize("size", [(256, 144), (256, 256), (128, 96), (320, 180)])
@pytest.mark.parametrize("source", [(1280, 720), (1920, 1080), (640, 480), (854, 480), (1279, 719)])
def test_it_agrees_with_an_area_resize(source: tuple[int, int], size: tuple[int, int]) -> None:
    plane = soft_noise(*source)
    exact = cv2.resize(plane, size, interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shrink_plane(plane, size).astype(int) - exact).mean() < 1.5


@pytest.mark.parametrize("source", [(1280, 720), (641, 359), (333, 250)])
def test_nothing_moves(source: tuple[int, int]) -> None:
    """A ramp keeps its value at every relative position: no drift to a side by rounding of sizes."""
    width, height = source
    ramp = np.linspace(0, 255, width, endpoint=False)[None, :] + 255 / width / 2
    plane = np.repeat(ramp, height, axis=0).round().astype(np.uint8)
    small = shrink_plane(plane, (50, 40))
    expected = (np.arange(50) + 0.5) / 50 * 255
    assert np.abs(small.astype(float) - expected).max() < 1.6


def test_fine_stripes_turn_grey_instead_of_into_coarse_ones() -> None:
    plane = np.zeros((720, 1280), np.uint8)
    plane[:, ::2] = 200
    assert np.abs(shrink_plane(plane, (256, 144)).astype(int) - 100).max() <= 1


def test_a_plane_with_a_stride_gives_the_same_as_its_copy() -> None:
    plane = soft_noise(300, 200)[10:190, 20:270]
    assert (shrink_plane(plane, (64, 36)) == shrink_plane(plane.copy(), (64, 36))).all()


def test_the_result_never_shares_memory_with_the_picture() -> None:
    picture = I420.filled(16, 8, (100, 90, 200))
    small = shrink(picture, (8, 4))  # the size of the chroma planes: nothing to resize there
    picture.buffer[:] = 0
    assert (small.u == 90).all()
    assert (small.v == 200).all()


def test_the_planes_of_an_odd_picture_line_up() -> None:
    picture = I420.filled(641, 361, (16, 128, 128), Matrix.BT601)
    picture.y[:, 320:] = 235
    picture.u[:, 160:] = 240
    small = shrink(picture, (64, 36))
    assert small.matrix is Matrix.BT601
    assert (small.width, small.height) == (64, 36)
    edges = [int(np.argmax(plane[5] > 130 + 40 * (plane is small.u))) for plane in (small.y, small.u)]
    assert edges[0] == edges[1] == 32


@pytest.mark.parametrize("size", [(0, 10), (10, -1)])
def test_an_impossible_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1x1"):
        shrink(I420.filled(16, 16, (16, 128, 128)), size)


@settings(max_examples=150, deadline=None)
@given(
    middle=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    halvings=st.integers(0, 3),
    target=SIZES,
    seed=st.integers(0, 2**31),
)
def test_native_equals_reference(
    middle: tuple[int, int], halvings: int, target: tuple[int, int], seed: int
) -> None:
    """Within one code value of the formula, and of OpenCV, with which it is equal on x86-64. On arm64 OpenCV itself is
    two off the formula, and where a side is stretched it is wrong, by up to 244 code values."""
    native = pytest.importorskip("edge_seg._pyramid", reason="the extension was not built").shrink
    rows, cols = middle[0] << halvings, middle[1] << halvings
    memory = np.random.default_rng(seed).integers(0, 256, (rows, cols + 5), dtype=np.uint8)
    plane = memory[:, 3 : cols + 3]
    out = np.empty((1, target[1], target[0]), np.uint8)
    if native((plane,), out):  # left to OpenCV
        return
    small, halved = out[0].astype(int), plane.astype(int)
    while halved.shape[1] >= 2 * target[0]:
        halved = (halved[::2, ::2] + halved[::2, 1::2] + halved[1::2, ::2] + halved[1::2, 1::2] + 2) >> 2
    assert np.abs(small - bilinear(halved, target)).max() <= 1
    if target[0] <= halved.shape[1] and target[1] <= halved.shape[0]:
        most = 1 if platform.machine() == "x86_64" else 1 + 2
        assert np.abs(small - shrink_plane_reference(plane, target)).max() <= most


def bilinear(plane: NDArray[np.int_], size: tuple[int, int]) -> NDArray[np.float64]:
    """By the formula, centres aligned, the rim repeated."""
    (width, height), (rows, cols) = size, plane.shape
    x = np.clip((np.arange(width) + 0.5) * cols / width - 0.5, 0, cols - 1)
    y = np.clip((np.arange(height) + 0.5) * rows / height - 0.5, 0, rows - 1)
    left, top = x.astype(int), y.astype(int)
    right, low = np.minimum(left + 1, cols - 1), np.minimum(top + 1, rows - 1)
    above, below = (
        plane[line][:, left] + (plane[line][:, right] - plane[line][:, left]) * (x - left)
        for line in (top, low)
    )
    return np.asarray(above + (below - above) * (y - top)[:, None], np.float64)


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (640, 480), (256, 144)])
def test_usual_sizes_are_made_natively(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("edge_seg._pyramid", reason="the extension was not built")
    monkeypatch.setattr(pyramid, "shrink_plane_reference", None)
    assert shrink(I420.filled(*size, (50, 60, 70)), (256, 144)).y[5, 5] == 50


def test_the_kernel_says_which_planes_it_left() -> None:
    native = pytest.importorskip("edge_seg._pyramid", reason="the extension was not built").shrink
    even, odd, narrow = (np.full(shape, 9, np.uint8) for shape in ((12, 12), (13, 12), (12, 3)))
    out = np.zeros((3, 4, 4), np.uint8)
    assert native((odd, even, narrow), out) == 0b101
    assert [int(small.max()) for small in out] == [0, 9, 0]


def test_the_kernel_refuses_what_it_cannot_do() -> None:
    native = pytest.importorskip("edge_seg._pyramid", reason="the extension was not built").shrink
    plane, out = np.zeros((12, 12), np.uint8), np.zeros((2, 4, 4), np.uint8)
    for planes, wrong in (((), out[:0]), ((plane,), out), ((plane, plane), out[:, ::2]), ((plane,), plane)):
        with pytest.raises(ValueError, match=r"1 to 4 planes|contiguous"):
            native(planes, wrong)
    with pytest.raises(TypeError, match="plane"):
        native((plane, plane.astype(np.float32)), out)
    with pytest.raises(TypeError, match="tuple"):
        native(plane, out)
