"""The native composite against its reference, and what both promise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg.composite import composite, composite_native, composite_reference
from edge_seg.types import ALPHA_ONE, F32, GAIN_ONE, I16, I420, U8, Alpha, Matrix, fixed, is_fitted

_blend = pytest.importorskip("edge_seg._blend", reason="the extension was not built")


def noise(rng: np.random.Generator, width: int, height: int) -> I420:
    picture = I420.allocate(width, height)
    picture.buffer[:] = rng.integers(0, 256, picture.buffer.size, dtype=np.uint8)
    return picture


def fields(rng: np.random.Generator, cols: int, rows: int, kind: str) -> tuple[I16, I16 | None, U8 | None]:
    """Offset, gain and foreground of a coarse grid, as the kernels take them."""
    offset, gain, foreground = real_fields(rng, cols, rows, kind)
    return fixed(offset, ALPHA_ONE), None if gain is None else fixed(gain, GAIN_ONE), foreground


def real_fields(
    rng: np.random.Generator, cols: int, rows: int, kind: str
) -> tuple[F32, F32 | None, U8 | None]:
    if kind == "binary":
        return rng.integers(0, 2, (rows, cols)).astype(np.float32), None, None
    if kind == "soft":
        return np.clip(rng.normal(0.5, 1, (rows, cols)), 0, 1).astype(np.float32), None, None
    if kind == "person":  # large areas of one kind, as in pictures
        soft = cv2.GaussianBlur(rng.random((rows, cols)).astype(np.float32), (0, 0), 4)
        offset = np.clip((soft - 0.5) * 20 + 0.5, 0, 1).astype(np.float32)
        gain = rng.normal(0, 4, (3, rows, cols)).astype(np.float32)
        return offset, gain, rng.integers(16, 241, (3, rows, cols), dtype=np.uint8)
    gain = rng.normal(0, 4, (3, rows, cols)).astype(np.float32)
    gain[:, rng.random((rows, cols)) < 0.5] = 0  # as outside of the matte's band
    offset = rng.normal(0.5, 1, (rows, cols)).astype(np.float32)
    offset = np.where(rng.random((rows, cols)) < 0.5, np.clip(offset, 0, 1), offset)
    return offset, gain, rng.integers(16, 241, (3, rows, cols), dtype=np.uint8) if kind == "matte" else None


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(1, 300),
    height=st.integers(1, 40),
    cols=st.integers(1, 120),
    rows=st.integers(1, 50),
    kind=st.sampled_from(["binary", "soft", "fitted", "matte", "person"]),
)
def test_native_equals_reference(seed: int, width: int, height: int, cols: int, rows: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    front, back, ours, theirs = (noise(rng, width, height) for _ in range(4))
    grid = fields(rng, cols, rows, kind)
    composite_native(front.planes, back.planes, ours.planes, *grid)
    composite_reference(front.planes, back.planes, theirs.planes, *grid)
    for a, b in zip(ours.planes, theirs.planes, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1919, 1079), (854, 480), (2, 2), (7, 1), (1, 9)])
def test_within_one_code_value_of_the_formula(width: int, height: int) -> None:
    rng = np.random.default_rng(1)
    front, back, out = (noise(rng, width, height) for _ in range(3))
    offset = real_fields(rng, 256, 144, "soft")[0]
    composite(front, Alpha(offset=fixed(offset, ALPHA_ONE), seq=0), back, out)
    x = np.clip((np.arange(width) + 0.5) * 256 / width - 0.5, 0, 255)
    y = np.clip((np.arange(height) + 0.5) * 144 / height - 0.5, 0, 143)
    x0, y0 = np.minimum(x.astype(int), 254), np.minimum(y.astype(int), 142)
    fx, fy = x - x0, (y - y0)[:, None]
    top = offset[y0][:, x0] * (1 - fx) + offset[y0][:, x0 + 1] * fx
    low = offset[y0 + 1][:, x0] * (1 - fx) + offset[y0 + 1][:, x0 + 1] * fx
    alpha = top * (1 - fy) + low * fy
    exact = back.y + alpha * (front.y.astype(float) - back.y)
    assert np.abs(out.y - exact).max() <= 1.5  # one code value, and half a one of rounding


def test_without_alpha_only_the_background_shows() -> None:
    rng = np.random.default_rng(2)
    front, back, out = (noise(rng, 33, 17) for _ in range(3))
    composite(front, None, back, out)
    for a, b in zip(out.planes, back.planes, strict=True):
        np.testing.assert_array_equal(a, b)


def test_alpha_that_is_not_a_number_shows_the_background() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.5], np.float32)
    assert fixed(values, ALPHA_ONE).tolist() == [0, 16383, -16383, 514]


def test_saturated_alpha_passes_pictures_through_unchanged() -> None:
    rng = np.random.default_rng(4)
    front, back, out = (noise(rng, 50, 30) for _ in range(3))
    zero, one = np.zeros((9, 16), np.int16), np.full((9, 16), ALPHA_ONE, np.int16)
    grey = np.full((3, 9, 16), 128, np.uint8)
    for offset, source in ((zero, back), (one, front)):
        composite(front, Alpha(offset=offset, seq=0, foreground=grey), back, out)
        for a, b in zip(out.planes, source.planes, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("target", ["front", "back"])
@pytest.mark.parametrize(
    ("kind", "width"), [("matte", 101), ("person", 101), ("person", 640), ("person", 333)]
)
def test_in_place_equals_out_of_place(target: str, kind: str, width: int) -> None:
    rng = np.random.default_rng(5)
    front, back, out = (noise(rng, width, 57) for _ in range(3))
    offset, gain, foreground = fields(rng, width // 3, 18, kind)
    alpha = Alpha(offset=offset, seq=0, gain=gain, foreground=foreground)
    composite(front, alpha, back, out)
    composite(front, alpha, back, front if target == "front" else back)
    for a, b in zip(out.planes, (front if target == "front" else back).planes, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gains_that_an_offset_cancels_leave_no_stripes() -> None:
    # Both are upsampled; only where they are taken at the same place is what they cancel out to the same everywhere.
    colour = (90, 170, 60)
    front, white = I420.filled(320, 96, colour), I420.filled(320, 96, (235, 128, 128))
    out = I420.allocate(320, 96)
    gain = np.random.default_rng(8).normal(0, 2, (3, 19, 64)).astype(np.float32)
    cancelled = 0.5 - sum(g * (code - 128) / 255 for g, code in zip(gain, colour, strict=True))
    offset = fixed(cancelled.astype(np.float32), ALPHA_ONE)
    offset[~is_fitted(offset)] += 1  # of those the gains would not count
    composite(front, Alpha(offset=offset, seq=0, gain=fixed(gain, GAIN_ONE)), white, out)
    assert np.ptp(out.y.astype(int)) <= 2


def test_partial_overlap_is_refused() -> None:
    rng = np.random.default_rng(6)
    tall, back = noise(rng, 32, 34), noise(rng, 32, 32)
    upper, lower = (
        I420(buffer=tall.buffer, y=tall.y[s : s + 32], u=tall.u[s // 2 :][:16], v=tall.v[s // 2 :][:16])
        for s in (0, 2)
    )
    flat = np.full((2, 2), ALPHA_ONE // 2, np.int16)
    with pytest.raises(ValueError, match="overlaps"):
        composite_native(upper.planes, back.planes, lower.planes, flat, None, None)


def test_strided_views_and_bottom_up_rows() -> None:
    rng = np.random.default_rng(7)
    big, back = noise(rng, 128, 96), noise(rng, 64, 48)
    view = (big.y[16:64, 32:96], big.u[8:32, 16:48], big.v[8:32, 16:48])
    flipped = tuple(plane[::-1] for plane in back.planes)
    grid = fields(rng, 20, 11, "matte")
    ours, theirs = I420.filled(64, 48, (0, 0, 0)), I420.filled(64, 48, (0, 0, 0))
    composite_native(view, flipped, ours.planes, *grid)
    composite_reference(view, flipped, theirs.planes, *grid)  # type: ignore[arg-type]
    for a, b in zip(ours.planes, theirs.planes, strict=True):
        np.testing.assert_array_equal(a, b)


def test_mismatched_arguments_are_refused() -> None:
    a, b = I420.allocate(16, 16), I420.allocate(18, 16)
    flat = np.zeros((2, 2), np.int16)
    alpha = Alpha(offset=flat, seq=0)
    with pytest.raises(ValueError, match="background"):
        composite(a, alpha, b, a)
    with pytest.raises(ValueError, match="bt601"):
        composite(a, alpha, I420.allocate(16, 16, Matrix.BT601), a)
    with pytest.raises(ValueError, match="gain"):
        composite_native(a.planes, a.planes, a.planes, flat, np.zeros((3, 3, 2), np.int16), None)
    with pytest.raises(ValueError, match="contiguous"):
        composite_native(a.planes, a.planes, a.planes, np.zeros((2, 4), np.int16)[:, :2], None, None)
    with pytest.raises(TypeError, match="offset"):
        composite_native(a.planes, a.planes, a.planes, flat.astype(np.float64), None, None)
    with pytest.raises(ValueError, match="u"):
        composite_native((a.y, b.u, a.v), a.planes, a.planes, flat, None, None)
    with pytest.raises(ValueError, match="layout"):
        _blend.composite(a.planes, a.planes, a.planes, flat, None, None, _blend.layout(16, 18, 2, 2))
    with pytest.raises(ValueError, match="PyCapsule"):
        _blend.composite(a.planes, a.planes, a.planes, flat, None, None, "a layout")
    with pytest.raises(ValueError, match="1 to 16384"):
        _blend.layout(16, 0, 2, 2)


def test_old_background_goes_out_of_half_transparent_pixels() -> None:
    """A grey person over a bright room, half of each in every pixel, on black: the brightness goes."""
    person, room, alpha = 100, 220, 0.5
    front = I420.filled(32, 32, (round(alpha * person + (1 - alpha) * room), 128, 128))
    back, plain, clean = (I420.filled(32, 32, (16, 128, 128)) for _ in range(3))
    half = fixed(np.full((4, 4), alpha, np.float32), ALPHA_ONE)
    nearby = np.full((3, 4, 4), 128, np.uint8)
    nearby[0] = person + (person - room) // 2  # blur fusion's F + (F - B) / 2
    composite(front, Alpha(offset=half, seq=0), back, plain)
    composite(front, Alpha(offset=half, seq=0, foreground=nearby), back, clean)
    wanted = alpha * person + (1 - alpha) * 16
    assert abs(int(clean.y[16, 16]) - wanted) <= 1
    assert plain.y[16, 16] > wanted + 20


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("width", "height"), [(640, 90), (101, 57), (2, 2), (1, 1)])
def test_a_background_of_one_row_stands_for_all_rows(width: int, height: int, plain: bool) -> None:
    rng = np.random.default_rng(9)
    front, row = noise(rng, width, height), noise(rng, width, 2)
    if plain:
        for plane, code in zip(row.planes, (90, 100, 140), strict=True):
            plane[:] = code
    offset, gain, foreground = fields(rng, 64, 36, "person")
    seen = [
        np.broadcast_to(p[:1], (len(f), p.shape[1])) for p, f in zip(row.planes, front.planes, strict=True)
    ]
    whole = [np.ascontiguousarray(plane) for plane in seen]
    outs = [I420.allocate(width, height) for _ in range(2)]
    for back, out in zip((seen, whole), outs, strict=True):
        composite_native(front.planes, tuple(back), out.planes, offset, gain, foreground)
    for a, b in zip(outs[0].planes, outs[1].planes, strict=True):
        np.testing.assert_array_equal(a, b)
