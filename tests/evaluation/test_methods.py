"""Every method on a clip, and the late-mask test: which mask is there when."""

import numpy as np
import pytest

from edge_seg.evaluation import command, late, methods, metrics
from edge_seg.evaluation.clip import Clip
from edge_seg.evaluation.late import DELAYS, Delay
from edge_seg.evaluation.methods import Settings
from edge_seg.pyramid import Yuv444
from edge_seg.types import Matrix

ROWS, COLS, STEP_PX = 72, 128, 2


def moving(frames: int = 10) -> Clip:
    """A textured square that moves right over a textured room by STEP_PX a frame."""
    rng = np.random.default_rng(0)
    room = rng.integers(60, 140, (ROWS // 4, COLS // 4), np.uint8).repeat(4, 0).repeat(4, 1)
    person = rng.integers(120, 230, (10, 10), np.uint8).repeat(4, 0).repeat(4, 1)
    gray = np.full((ROWS, COLS), 128, np.uint8)
    smalls, truth = [], np.zeros((frames, ROWS, COLS), np.float32)
    for frame in range(frames):
        left = 20 + STEP_PX * frame
        luma = room.copy()
        luma[16:56, left : left + 40] = person
        smalls.append(Yuv444(luma, gray, gray, Matrix.BT601))
        truth[frame, 16:56, left : left + 40] = 1
    return Clip("square", tuple(f"{i:05d}" for i in range(frames)), tuple(smalls), truth)


def test_the_command_knows_every_method():
    assert command.METHOD_NAMES == methods.METHODS


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_begins_with_the_models_mask_and_keeps_a_right_one(method):
    clip = moving()
    ticks = []
    found = methods.run(method, clip, clip.truth, Settings(), lambda: ticks.append(1))
    assert len(ticks) == len(clip)
    assert found.shape == clip.truth.shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0] >= 0.5, clip.truth[0] >= 0.5)
    assert metrics.scores(found, clip.truth).iou > 0.9


def test_ours_is_steadier_than_a_flickering_model():
    clip = moving()
    noise = np.random.default_rng(1).normal(0, 0.15, clip.truth.shape).astype(np.float32)
    model = np.clip(0.1 + 0.8 * clip.truth + noise, 0, 1)
    raw = metrics.scores(methods.run("raw", clip, model, Settings(), int), clip.truth)
    ours = metrics.scores(methods.run("ours", clip, model, Settings(), int), clip.truth)
    assert ours.dtssd < 0.8 * raw.dtssd
    assert ours.iou > raw.iou


def test_methods_leave_the_models_masks_alone():
    clip = moving(4)
    model = clip.truth.copy()
    for method in methods.METHODS:
        methods.run(method, clip, model, Settings(), int)
    np.testing.assert_array_equal(model, clip.truth)


@pytest.mark.parametrize(
    ("delay", "newest"),
    [
        # The frame whose mask is the newest, for each frame: mask 0 at once, then lag frames late.
        (Delay(1, 1), [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (Delay(2, 3), [0, 0, 0, 0, 0, 3, 3, 3, 6, 6]),
        (Delay(4, 5), [0, 0, 0, 0, 0, 0, 0, 0, 0, 5]),
    ],
)
def test_hold_shows_the_newest_mask_unmoved(delay, newest):
    clip = moving()
    found = late.run("hold", clip, delay, Settings(), int)
    np.testing.assert_array_equal(found, clip.truth[newest])


def test_the_delays_are_those_of_the_design():
    assert [str(delay) for delay in DELAYS] == ["1,1", "2,3", "4,5"]


@pytest.mark.parametrize("delay", DELAYS, ids=str)
def test_ours_carries_what_hold_leaves_behind(delay):
    clip = moving()
    hold = metrics.scores(late.run("hold", clip, delay, Settings(), int), clip.truth)
    ours = metrics.scores(late.run("ours", clip, delay, Settings(), int), clip.truth)
    assert hold.iou < 0.92
    assert ours.iou > 0.95


def test_no_target_mask_is_an_empty_one():
    # A cut, and no mask of the new scene yet: viewers see no person.
    clip = moving(4)
    dark, bright = clip.smalls[0], clip.smalls[1]._replace(y=255 - clip.smalls[1].y)
    ours = methods.Ours(Settings())
    ours.advance(dark)
    assert ours.target().max() == 0  # nothing was ever observed
    ours.observe(clip.truth[0], 0)
    assert ours.target().max() == 1
    ours.advance(bright)
    assert ours.target().shape == (ROWS, COLS)
