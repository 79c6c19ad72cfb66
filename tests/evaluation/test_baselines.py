"""The public smoothers against values worked out by hand from their formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_seg.evaluation.baselines import (
    Ema,
    MediaPipe,
    PPHumanSeg,
    Raw,
    finest_scale,
    mediapipe_uncertainty,
)

FLAT = np.full((24, 32), 128, np.uint8)
SMOOTHERS = (Raw, Ema, MediaPipe, PPHumanSeg)
SMALL = hnp.arrays(np.float32, (24, 32), elements=st.floats(0, 1, width=16))


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def still(mask: np.ndarray) -> np.ndarray:
    return np.zeros((*mask.shape, 2), np.float32)


@pytest.mark.parametrize("smoother", SMOOTHERS)
def test_the_first_mask_is_the_models(smoother):
    mask = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    np.testing.assert_array_equal(smoother().step(mask, FLAT), mask)


def test_raw_forgets():
    raw = Raw()
    raw.step(row(1, 1), FLAT)
    np.testing.assert_array_equal(raw.step(row(0.25, 0.5), FLAT), row(0.25, 0.5))


def test_ema_halves_the_way():
    ema = Ema(0.5)
    ema.step(row(0, 1), FLAT)
    np.testing.assert_allclose(ema.step(row(1, 1), FLAT), row(0.5, 1))
    np.testing.assert_allclose(ema.step(row(1, 0), FLAT), row(0.75, 0.5))


def test_mediapipe_uncertainty_by_hand():
    # p = 0.5: t = 0, certainty 0. p = 0.75: x = 0.0625,
    # x (5.68842 + x (-0.748699 + x (-57.8051 + x (291.309 + x * -624.717))))
    #   291.309 - 39.0448 = 252.2642; -57.8051 + 15.7665 = -42.0386; -0.748699 - 2.62741 = -3.37611
    #   5.68842 - 0.211007 = 5.477413; * 0.0625 = 0.342338
    # p = 1: x = 0.25: 291.309 - 156.17925 = 135.12975; -57.8051 + 33.78244 = -24.02266;
    #   -0.748699 - 6.005666 = -6.754365; 5.68842 - 1.688591 = 3.999829; * 0.25 = 0.999957
    found = mediapipe_uncertainty(row(0.5, 0.75, 0.25, 1.0, 0.0))
    np.testing.assert_allclose(found, row(1, 0.657662, 0.657662, 0.000043, 0.000043), atol=2e-6)


def test_mediapipe_uncertainty_approximates_the_squared_entropy_it_stands_for():
    p = np.linspace(0.01, 0.99, 99)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    np.testing.assert_allclose(mediapipe_uncertainty(p.astype(np.float32)), entropy**2, atol=0.002)


def test_mediapipe_keeps_the_last_output_where_the_new_mask_is_uncertain():
    smoother = MediaPipe(0.7)
    smoother.step(row(1.0, 1.0, 0.0), FLAT)
    # 0.5 + 0.7 * 1 * (1 - 0.5) = 0.85; 0.75 + 0.7 * 0.657662 * 0.25 = 0.865091; 1 + 0.7 * 0.000043 * -1
    found = smoother.step(row(0.5, 0.75, 1.0), FLAT)
    np.testing.assert_allclose(found, row(0.85, 0.865091, 0.99997), atol=2e-6)


def test_pphumanseg_still_pixels():
    last, mask = row(0.2, 0.2, 0.2), row(0.95, 0.5, 0.05)
    # Certain: 0.3 new + 0.7 last. Uncertain: 0.05 new + 0.95 last.
    expected = row(0.3 * 0.95 + 0.7 * 0.2, 0.05 * 0.5 + 0.95 * 0.2, 0.3 * 0.05 + 0.7 * 0.2)
    np.testing.assert_allclose(PPHumanSeg.fuse(last, mask, still(mask), still(mask)), expected, rtol=1e-6)


def test_pphumanseg_moving_pixels():
    # All move right by one: element 3 gets the last output of 2, and so on. Nothing comes to element 0.
    last, mask = row(0.1, 0.2, 0.3, 0.4), row(0.6, 0.95, 0.5, 0.5)
    forward, backward = still(mask), still(mask)
    forward[..., 0], backward[..., 0] = 1.2, -0.9  # both round to 1
    expected = row(0.6, 0.4 * 0.95 + 0.6 * 0.1, 0.3 * 0.5 + 0.7 * 0.2, 0.3 * 0.5 + 0.7 * 0.3)
    np.testing.assert_allclose(PPHumanSeg.fuse(last, mask, forward, backward), expected, rtol=1e-6)


def test_pphumanseg_drops_vectors_that_do_not_return():
    last, mask = row(0.1, 0.2, 0.3, 0.4), row(0.5, 0.5, 0.5, 0.5)
    forward, backward = still(mask), still(mask)
    forward[0, :, 0] = (2, 3, 0, 0)
    # 0 -> 2 and back by 0: squared error 4, followed. 1 -> 4: out of the picture. 2 and 3 stay, and 2
    # overwrites what came from 0, as later pixels do. Element 1 is reached by nothing: the new mask alone.
    expected = row(0.05 * 0.5 + 0.95 * 0.1, 0.5, 0.05 * 0.5 + 0.95 * 0.3, 0.05 * 0.5 + 0.95 * 0.4)
    expected[0, 0] = 0.5  # 0 has left, and nothing came
    np.testing.assert_allclose(PPHumanSeg.fuse(last, mask, forward, backward), expected, rtol=1e-6)


@pytest.mark.parametrize(("length", "reached"), [(2, True), (3, False)])
def test_pphumanseg_follows_up_to_a_squared_error_below_8(length, reached):
    last, mask = row(0.1, 0.2, 0.3, 0.4), row(0.5, 0.5, 0.5, 0.5)
    forward, backward = still(mask), still(mask)
    forward[0, :, 0] = (length, 9, 9, 9)  # all but the first leave the picture
    found = PPHumanSeg.fuse(last, mask, forward, backward)
    carried = 0.3 * 0.5 + 0.7 * 0.1
    assert found[0, length] == pytest.approx(carried if reached else 0.5)


def test_pphumanseg_follows_a_real_motion():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (80, 120), np.uint8).repeat(2, 0).repeat(2, 1)[:144, :240]
    moved = np.roll(texture, 3, axis=1)
    mask = np.zeros(texture.shape, np.float32)
    mask[40:100, 60:120] = 1
    smoother = PPHumanSeg()
    smoother.step(mask, texture)
    found = smoother.step(np.full_like(mask, 0.5), moved)
    carried = np.roll(mask, 3, axis=1)
    inner = np.s_[20:-20, 20:-20]
    assert np.abs((found >= 0.5)[inner] != (carried >= 0.5)[inner]).mean() < 0.01
    assert np.abs((found >= 0.5)[inner] != (mask >= 0.5)[inner]).mean() > 0.015


@pytest.mark.parametrize(("rows", "cols", "level"), [(64, 200, 1), (144, 256, 2), (256, 256, 3)])
def test_finest_scale_follows_the_size(rows, cols, level):
    assert finest_scale(rows, cols) == level


@pytest.mark.parametrize("smoother", SMOOTHERS)
@given(first=SMALL, second=SMALL)
def test_masks_stay_in_range_and_input_is_left_alone(smoother, first, second):
    kept = first.copy(), second.copy()
    one = smoother()
    one.step(first, FLAT)
    found = one.step(second, FLAT)
    assert found.dtype == np.float32
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6
    np.testing.assert_array_equal((first, second), kept)
