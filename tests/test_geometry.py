"""Crop, rotation and mirroring against what NumPy says they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg.geometry import Geometry, Rotation, output_size, place
from edge_seg.types import I420, U8


def expected(plane: U8, geometry: Geometry) -> U8:
    turned = np.rot90(plane, -geometry.rotate // 90)
    return turned[:, ::-1] if geometry.mirror else turned


def noise(rng: np.random.Generator, width: int, height: int) -> I420:
    picture = I420.allocate(width, height)
    picture.buffer[:] = rng.integers(0, 256, picture.buffer.size, dtype=np.uint8)
    return picture


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_every_turn_of_a_picture(rotate: Rotation, mirror: bool) -> None:
    source = noise(np.random.default_rng(0), 322, 178)
    geometry = Geometry(rotate=rotate, mirror=mirror)
    out = I420.allocate(*output_size(322, 178, geometry))
    place(source.planes, geometry, out)
    for plane, result in zip(source.planes, out.planes, strict=True):
        np.testing.assert_array_equal(result, expected(plane, geometry))


def test_crop_takes_whole_chroma_samples() -> None:
    source = noise(np.random.default_rng(1), 100, 60)
    geometry = Geometry(crop_left=0.11, crop_right=0.2, crop_top=0.25)
    out = I420.allocate(*output_size(100, 60, geometry))
    place(source.planes, geometry, out)
    assert (out.width, out.height) == (70, 46)
    np.testing.assert_array_equal(out.y, source.y[14:60, 10:80])
    np.testing.assert_array_equal(out.u, source.u[7:30, 5:40])


def test_an_odd_picture_passes_unchanged_and_is_cut_even_when_turned() -> None:
    source = noise(np.random.default_rng(2), 33, 17)
    assert output_size(33, 17, Geometry()) == (33, 17)
    out = I420.allocate(33, 17)
    place(source.planes, Geometry(), out)
    np.testing.assert_array_equal(out.v, source.v)
    assert output_size(33, 17, Geometry(rotate=90)) == (16, 32)
    turned = I420.allocate(16, 32)
    place(source.planes, Geometry(rotate=90), turned)
    np.testing.assert_array_equal(turned.y, np.rot90(source.y[:16, :32], -1))
    np.testing.assert_array_equal(turned.u, np.rot90(source.u[:8, :16], -1))


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    shares=st.tuples(*[st.floats(0, 0.9)] * 4),
    rotate=st.sampled_from([0, 90, 180, 270]),
    mirror=st.booleans(),
)
def test_any_geometry_leaves_a_picture(
    width: int, height: int, shares: tuple[float, float, float, float], rotate: Rotation, mirror: bool
) -> None:
    geometry = Geometry(*shares, rotate=rotate, mirror=mirror)
    out_width, out_height = output_size(width, height, geometry)
    assert out_width >= 1
    assert out_height >= 1
    place(
        noise(np.random.default_rng(3), width, height).planes, geometry, I420.allocate(out_width, out_height)
    )


def test_a_picture_of_the_wrong_size_is_refused() -> None:
    source = I420.allocate(16, 8)
    with pytest.raises(ValueError, match="expected"):
        place(source.planes, Geometry(rotate=90), I420.allocate(16, 8))
