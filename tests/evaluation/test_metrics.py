"""Every figure against values worked out by hand, and what holds for all masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_seg.evaluation import metrics

MASKS = hnp.arrays(np.float32, (4, 6, 7), elements=st.floats(0, 1, width=16))


def square(*, rows: slice, cols: slice, shape: tuple[int, int] = (12, 12)) -> np.ndarray:
    mask = np.zeros(shape, np.float32)
    mask[rows, cols] = 1
    return mask


def test_iou_is_intersection_over_union_at_one_half():
    p = np.array([[[0.5, 0.9, 0.49, 0.0]]], np.float32)
    g = np.array([[[1.0, 0.4, 0.6, 0.0]]], np.float32)
    # ours: elements 0, 1; truth: 0, 2; one in common of three.
    assert metrics.scores(p, g).iou == pytest.approx(1 / 3)


def test_an_empty_mask_of_an_empty_frame_is_right_and_one_empty_of_the_two_is_wrong():
    empty, full = np.zeros((1, 4, 4), np.float32), np.ones((1, 4, 4), np.float32)
    assert metrics.scores(empty, empty).iou == metrics.scores(empty, empty).bf1 == 1
    assert metrics.scores(full, full).iou == metrics.scores(full, full).bf1 == 1
    assert metrics.scores(empty, full).iou == metrics.scores(empty, full).bf1 == 0
    assert metrics.scores(full, empty).iou == metrics.scores(full, empty).bf1 == 0


def test_boundary_is_one_element_wide_and_not_at_the_edge_of_the_frame():
    mask = square(rows=slice(2, 7), cols=slice(0, 5)) >= 0.5
    found = metrics.boundary(mask)
    expected = np.zeros((12, 12), np.uint8)
    expected[2, 0:5] = expected[6, 0:5] = expected[2:7, 4] = 1  # no boundary along column 0, the frame's edge
    np.testing.assert_array_equal(found, expected)


def test_bf1_forgives_one_pixel_and_not_two():
    truth = square(rows=slice(3, 8), cols=slice(3, 8)) >= 0.5
    assert metrics.boundary_f1(truth, truth) == 1

    grown = square(rows=slice(3, 8), cols=slice(3, 9)) >= 0.5  # the right side one further out
    # 16 boundary elements in the truth, 18 in ours. Each has one of the other kind at most 1 px away.
    assert metrics.boundary_f1(grown, truth) == 1

    far = square(rows=slice(3, 8), cols=slice(3, 10)) >= 0.5  # two further out
    # Ours: 20 elements, of which the 5 in column 9 are 2 px away from the truth's column 7: 15 of 20.
    # Truth: 16, all within 1 px of ours but the one in the middle of column 7, since ours has rows 3 and 7.
    precision, recall = 15 / 20, 15 / 16
    assert metrics.boundary_f1(far, truth) == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(("row", "col", "expected"), [(5, 6, 1), (4, 5, 1), (6, 6, 0), (5, 7, 0)])
def test_one_pixel_of_tolerance_is_across_or_down_and_not_diagonal(row, col, expected):
    ours, truth = np.zeros((12, 12), np.bool_), np.zeros((12, 12), np.bool_)
    ours[row, col] = truth[5, 5] = True
    assert metrics.boundary_f1(ours, truth) == expected


def test_mad_is_in_thousandths():
    p = np.full((2, 3, 3), 0.25, np.float32)
    assert metrics.scores(p, np.zeros_like(p)).mad == pytest.approx(250)


def test_dtssd_compares_changes_and_not_masks():
    g = np.zeros((3, 2, 2), np.float32)
    p = np.array([0.5, 0.5, 0.5], np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
    assert metrics.scores(p, g).dtssd == 0  # wrong, but steady
    p[2, 0, 0] = 0.9
    # One of four elements changes by 0.4: sqrt(0.16 / 4) = 0.2 in the second pair of frames, 0 in the first.
    np.testing.assert_allclose(metrics.dtssd(p, g), [np.nan, 0, 20], rtol=1e-5)
    assert metrics.scores(p, g).dtssd == pytest.approx(10, rel=1e-5)


def test_ghost_is_what_is_left_where_the_person_was_and_cut_what_lacks_where_it_came():
    # One row; the person is one element wide and moves right by one element a frame.
    g = np.eye(6, dtype=np.float32)[:, None, :]
    p = np.zeros_like(g)
    p[5, 0] = [0.9, 0.8, 0.3, 0.2, 0.1, 0.6]
    # Frame 5: the person has left elements 4, 3, 2 within the last three frames, and come to element 5.
    assert metrics.ghost(p, g)[5] == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    assert metrics.cut(p, g)[5] == pytest.approx(0.4)
    assert metrics.ghost(p, g, k=1)[5] == pytest.approx(0.1)
    assert metrics.ghost(p, g, k=9)[5] == pytest.approx((0.1 + 0.2 + 0.3 + 0.8 + 0.9) / 5)


def test_ghost_and_cut_have_no_meaning_where_nothing_moves():
    still = np.stack([square(rows=slice(2, 6), cols=slice(2, 6))] * 4)
    found = metrics.scores(still, still)
    assert math.isnan(found.ghost)
    assert math.isnan(found.cut)
    assert metrics.mean([found, metrics.Scores(1, 1, 0, 0, 0.5, 0.25)]).ghost == 0.5


def test_frames_without_meaning_are_left_out_of_the_mean():
    g = np.zeros((4, 1, 4), np.float32)
    g[:2, 0, :2] = 1  # leaves at frame 2: ghost has a meaning in frames 2 and 3 only
    p = np.zeros_like(g)
    p[2, 0, :2], p[3, 0, :2] = 1.0, 0.5
    assert metrics.scores(p, g).ghost == pytest.approx(0.75)


def test_a_clip_counts_the_same_however_long():
    one = metrics.Scores(0.5, 0.5, 10, 1, 0.1, 0.1)
    other = metrics.Scores(1.0, 0.7, 30, 3, 0.3, 0.5)
    assert metrics.mean([one, other]).as_dict() == pytest.approx(
        {"iou": 0.75, "bf1": 0.6, "mad": 20, "dtssd": 2, "ghost": 0.2, "cut": 0.3}
    )


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3, 3\), \(3, 3, 3\)"):
        metrics.per_frame(np.zeros((2, 3, 3), np.float32), np.zeros((3, 3, 3), np.float32))


@given(MASKS)
def test_the_truth_itself_is_perfect(g):
    hard = (g >= 0.5).astype(np.float32)
    found = metrics.scores(hard, hard)
    assert (found.iou, found.bf1, found.mad, found.dtssd) == (1, 1, 0, 0)
    assert math.isnan(found.ghost) or found.ghost == 0
    assert math.isnan(found.cut) or found.cut == 0


@settings(deadline=None)
@given(MASKS, MASKS)
def test_figures_stay_in_range_and_do_not_depend_on_mirroring(p, g):
    found = metrics.scores(p, g)
    mirrored = metrics.scores(p[:, :, ::-1], g[:, :, ::-1])
    assert found.as_dict() == pytest.approx(mirrored.as_dict(), nan_ok=True)
    assert 0 <= found.iou <= 1
    assert 0 <= found.bf1 <= 1
    assert 0 <= found.mad <= 1000
    for fraction in (found.ghost, found.cut):
        assert math.isnan(fraction) or 0 <= fraction <= 1
