"""The recursion of masks: what must hold whatever the pictures are, and when a stream misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg import flow
from edge_seg.fusion import Fusion, FusionSettings
from edge_seg.types import F32, STEPS_A_PIXEL, U8, BlockFlow, Mask

SHAPE = (72, 128)
FRAME_NS = 33_333_333


def scene(seed: int, shape: tuple[int, int] = SHAPE) -> U8:
    """A textured picture with structure at several sizes."""
    rng = np.random.default_rng(seed)
    total = np.zeros(shape)
    for cell in (4, 12, 36):
        coarse = rng.uniform(-40, 40, (shape[0] // cell + 2, shape[1] // cell + 2))
        total += np.kron(coarse, np.ones((cell, cell)))[: shape[0], : shape[1]]
    return np.clip(128 + total, 16, 235).astype(np.uint8)


def disc(x: float, y: float, radius: float, shape: tuple[int, int] = SHAPE) -> F32:
    """A mask with an edge one pixel wide."""
    rows, cols = np.indices(shape)
    return np.clip(radius - np.hypot(cols - x, rows - y) + 0.5, 0, 1).astype(np.float32)


def uniform_flow(dx: float, dy: float, shape: tuple[int, int] = SHAPE, block: int = 4) -> BlockFlow:
    grid = (-(-shape[0] // block), -(-shape[1] // block))
    steps = np.empty((*grid, 2), np.int16)
    steps[...] = round(dx * STEPS_A_PIXEL), round(dy * STEPS_A_PIXEL)
    return BlockFlow(steps, np.zeros(grid, np.float32), np.ones(grid, np.float32), 0.0, block, shape)


def observed(probability: F32, seq: int) -> Mask:
    return Mask(np.ascontiguousarray(probability, np.float32), seq, seq, seq * FRAME_NS)


class Stream:
    """Frames and the model's masks of them, through flow and fusion, as the pipeline runs them."""

    def __init__(self, settings: FusionSettings | None = None) -> None:
        self.fusion = Fusion(settings or FusionSettings())
        self.previous: U8 | None = None
        self.seq = -1

    def frame(
        self, luma: U8, mask: F32 | None = None, vectors: BlockFlow | None = None, skipped: int = 0
    ) -> F32:
        self.seq += 1 + skipped
        moved = vectors
        if moved is None and self.previous is not None and self.previous.shape == luma.shape:
            moved = flow.estimate(self.previous, luma)
        self.fusion.advance(self.previous, luma, moved, self.seq, self.seq * FRAME_NS)
        self.previous = luma
        if mask is not None:
            assert self.fusion.observe(observed(mask, self.seq))
        target = self.fusion.target()
        assert target is not None
        assert target.seq == self.seq
        return target.probability


def test_the_first_target_mask_is_the_models() -> None:
    mask = disc(60, 30, 20)
    assert np.array_equal(Stream().frame(scene(1), mask), mask)


def test_no_mask_before_the_model_has_seen_the_scene() -> None:
    fusion = Fusion()
    assert fusion.target() is None
    fusion.advance(None, scene(1), None, 0, 0)
    assert fusion.target() is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_equal_masks_on_a_still_picture_are_a_fixed_point(seed: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    mask = rng.random(SHAPE, dtype=np.float32)
    stream = Stream()
    for _ in range(frames):
        target = stream.frame(luma, mask, uniform_flow(0, 0))
    assert np.abs(target - mask).max() < 1e-5


def test_equal_masks_on_a_still_picture_stay_when_its_background_is_known() -> None:
    luma, mask, stream = scene(7), np.random.default_rng(7).random(SHAPE, dtype=np.float32), Stream()
    for _ in range(40):
        target = stream.frame(luma, mask, uniform_flow(0, 0))
    assert np.abs(target - mask).max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["noise", "black", "white", "stripes"]),
    st.floats(-300, 300, width=32),
    st.floats(-300, 300, width=32),
)
def test_the_target_mask_stays_a_probability(seed: int, picture: str, dx: float, dy: float) -> None:
    rng = np.random.default_rng(seed)
    flat = {"black": 0, "white": 255}
    stripes = (np.indices(SHAPE)[1] % 2 * 255).astype(np.uint8)
    stream = Stream(FusionSettings(scene_similarity=0))
    for _ in range(4):
        if picture == "noise":
            luma = rng.integers(0, 256, SHAPE, dtype=np.uint8)
        else:
            luma = stripes if picture == "stripes" else np.full(SHAPE, flat[picture], np.uint8)
        target = stream.frame(luma, rng.random(SHAPE, dtype=np.float32).round(2), uniform_flow(dx, dy))
        assert np.isfinite(target).all()
        assert target.min() >= 0
        assert target.max() <= 1


def moved_results(dx: int, dy: int) -> tuple[F32, F32]:
    """The target mask of two frames, and that of the same frames and masks moved by (dx, dy), moved back."""
    large = (SHAPE[0] + 20, SHAPE[1] + 20)
    rng = np.random.default_rng(5)
    still = scene(3, large)
    noisy = [np.clip(still + rng.integers(-3, 4, large), 0, 255).astype(np.uint8) for _ in range(3)]
    masks = [disc(70 + 2 * k, 45 - k, 20 + k, large) for k in range(3)]
    results = []
    for x, y in ((10, 10), (10 + dx, 10 + dy)):
        stream = Stream()
        at = np.s_[y : y + SHAPE[0], x : x + SHAPE[1]]
        for luma, mask in zip(noisy, masks, strict=True):
            target = stream.frame(np.ascontiguousarray(luma[at]), mask[at], uniform_flow(0, 0))
        results.append(target)
    here = np.s_[14 : SHAPE[0] - 14, 14 : SHAPE[1] - 14]
    there = np.s_[14 - dy : SHAPE[0] - 14 - dy, 14 - dx : SHAPE[1] - 14 - dx]
    return results[0][here], results[1][there]


@pytest.mark.parametrize(("dx", "dy"), [(8, 0), (0, -8), (-8, 8)])
def test_moving_frames_and_masks_by_whole_tiles_moves_the_result(dx: int, dy: int) -> None:
    here, there = moved_results(dx, dy)
    assert np.abs(here - there).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9))
def test_moving_frames_and_masks_by_whole_pixels_moves_the_result(dx: int, dy: int) -> None:
    """Tiles lie otherwise over the picture then: equal where masks change, nearly equal elsewhere."""
    here, there = moved_results(dx, dy)
    assert np.abs(here - there).max() < 0.2
    assert np.abs(here - there).mean() < 1e-3


def test_a_mask_is_carried_with_the_picture() -> None:
    luma, mask = scene(4), disc(50, 36, 18)
    stream = Stream()
    stream.frame(luma, mask, None)
    carried = stream.frame(np.roll(luma, (2, 5), (0, 1)), None, uniform_flow(-5, -2))
    expected = np.roll(mask, (2, 5), (0, 1))
    assert np.abs(carried - expected)[8:-8, 8:-8].max() < 1e-4


def test_after_a_cut_the_first_mask_is_the_models() -> None:
    stream = Stream()
    for _ in range(5):
        stream.frame(scene(1), disc(40, 30, 20))
    after = disc(90, 40, 15)
    assert np.array_equal(stream.frame(scene(2), after), after)
    assert stream.fusion.scene_cuts == 1


def test_masks_from_before_a_reset_are_refused() -> None:
    stream = Stream()
    for _ in range(3):
        stream.frame(scene(1), disc(40, 30, 20))
    stream.fusion.advance(scene(1), scene(2), flow.estimate(scene(1), scene(2)), 3, 3 * FRAME_NS)
    assert not stream.fusion.observe(observed(disc(40, 30, 20), 2))
    assert stream.fusion.target() is None
    assert stream.fusion.observe(observed(disc(40, 30, 20), 3))


def test_a_late_mask_arrives_where_its_object_is_now() -> None:
    """The mask of frame 0 comes four frames late; the picture has moved on by 12 pixels."""
    luma, mask = scene(6), disc(40, 36, 18)
    stream = Stream()
    for k in range(5):
        stream.seq = k
        before = stream.previous
        stream.previous = np.roll(luma, 3 * k, 1)
        vectors = None if before is None else uniform_flow(-3, 0)
        stream.fusion.advance(before, stream.previous, vectors, k, k * FRAME_NS)
    assert stream.fusion.observe(observed(mask, 0))
    target = stream.fusion.target()
    assert target is not None
    assert (target.seq, target.observed_seq, target.observed_ns) == (4, 0, 0)
    assert np.abs(target.probability - np.roll(mask, 12, 1))[:, 16:-4].max() < 1e-3


def test_the_later_a_mask_the_less_it_weighs() -> None:
    """On the same flickering picture a contradicting mask moves the target less when it is older."""
    rng = np.random.default_rng(7)
    changes = []
    for late in (0, 2, 4):
        stream = Stream()
        for k in range(6):
            luma = np.clip(scene(8).astype(int) + rng.integers(-6, 7, SHAPE), 0, 255).astype(np.uint8)
            mask = np.zeros(SHAPE, np.float32) if k < 2 else None
            before = stream.frame(luma, mask, uniform_flow(0, 0))
        assert stream.fusion.observe(observed(np.ones(SHAPE, np.float32), stream.seq - late))
        target = stream.fusion.target()
        assert target is not None
        changes.append(float((target.probability - before).mean()))
    assert changes[0] > changes[1] > changes[2] > 0


def test_masks_older_than_the_history_are_refused() -> None:
    stream = Stream(FusionSettings(history=2))
    stream.frame(scene(1), disc(40, 30, 20))
    for _ in range(5):
        stream.frame(scene(1))
    assert not stream.fusion.observe(observed(disc(40, 30, 20), 2))
    assert stream.fusion.observe(observed(disc(40, 30, 20), 3))


def test_masks_older_than_the_last_are_refused() -> None:
    stream = Stream()
    for _ in range(6):
        stream.frame(scene(1), disc(40, 30, 20))
    target = stream.frame(scene(1))
    assert not stream.fusion.observe(observed(disc(80, 30, 20), 4))
    kept = stream.fusion.target()
    assert kept is not None
    assert (kept.probability == target).all()
    assert kept.observed_seq == 5
    assert stream.fusion.observe(observed(disc(40, 30, 20), 6))


def test_a_mask_of_another_size_is_brought_to_the_grid() -> None:
    stream = Stream()
    target = stream.frame(scene(1), disc(30, 18, 10, (36, 64)))
    assert target.shape == SHAPE
    assert abs(float(target.mean()) - float(disc(60, 36, 20).mean())) < 0.01


def test_flow_of_another_grid_is_an_error() -> None:
    stream = Stream()
    stream.frame(scene(1), disc(40, 30, 20))
    with pytest.raises(ValueError, match="must be the same"):
        stream.frame(scene(1), disc(40, 30, 20), uniform_flow(0, 0, (90, 160)))


# What streams do to a recursion. A synthetic model errs as models do: its mask's edge jitters, blobs come and go.


@dataclass
class Actor:
    """A textured disc that moves over a textured room."""

    x: float
    y: float
    radius: float
    hole: float = 0


def play(room: U8, actors: list[Actor], noise: np.random.Generator) -> tuple[U8, F32]:
    """One frame and its exact mask."""
    cloth = scene(99)
    picture, truth = room.astype(np.float32), np.zeros(SHAPE, np.float32)
    for actor in actors:
        mask = disc(actor.x, actor.y, actor.radius)
        if actor.hole:
            mask *= 1 - disc(actor.x, actor.y, actor.hole)
        body = 0.3 * np.roll(cloth, (round(actor.y), round(actor.x)), (0, 1)) + 20
        picture = picture * (1 - mask) + body * mask
        truth = np.maximum(truth, mask)
    picture += noise.normal(0, 1.5, SHAPE)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), truth


def model_of(truth: F32, rng: np.random.Generator) -> F32:
    """What a model might say: the edge up to 2 pixels off, and a blob of doubt somewhere."""
    shift = rng.integers(-2, 3, 2)
    doubt = 0.4 * disc(rng.uniform(0, SHAPE[1]), rng.uniform(0, SHAPE[0]), 5)
    mask = np.roll(truth, shift, (0, 1))
    return np.clip(mask + doubt * (1 - 2 * mask), 0, 1).astype(np.float32)


def iou(mask: F32, truth: F32) -> float:
    a, b = mask >= 0.5, truth >= 0.5
    return float((a & b).sum() / max(1, (a | b).sum())) if (a | b).any() else 1.0


def run(
    path: Callable[[int], list[Actor]], frames: int, room: U8 | None = None
) -> tuple[float, float, Stream]:
    """Mean IoU of the target masks and of the model's, after the first three frames."""
    rng = np.random.default_rng(11)
    stream, ours, models = Stream(), [], []
    for k in range(frames):
        luma, truth = play(scene(21) if room is None else room, path(k), rng)
        mask = model_of(truth, rng)
        target = stream.frame(luma, mask)
        if k >= 3:
            ours.append(iou(target, truth))
            models.append(iou(mask, truth))
    return float(np.mean(ours)), float(np.mean(models)), stream


def test_someone_walking_is_cut_out_better_than_by_the_model() -> None:
    ours, model, stream = run(lambda k: [Actor(30 + 2 * k, 36, 16)], 30)
    assert ours > model + 0.03
    assert stream.fusion.scene_cuts == 0


def test_two_people_pass_each_other() -> None:
    ours, model, _ = run(lambda k: [Actor(24 + 3 * k, 30, 12), Actor(104 - 3 * k, 44, 12)], 26)
    assert ours > model + 0.02


def test_a_hole_in_the_mask_stays_a_hole() -> None:
    """Arm on hip: the room shows through, and moves differently."""
    rng = np.random.default_rng(12)
    stream = Stream()
    for k in range(25):
        luma, truth = play(scene(21), [Actor(40 + 2 * k, 36, 22, hole=8)], rng)
        target = stream.frame(luma, truth)
        hole = disc(40 + 2 * k, 36, 6) > 0.5
        assert target[hole].mean() < 0.1
    assert iou(target, truth) > 0.93


def test_someone_enters_and_leaves_without_a_trace() -> None:
    """In over the left rim, out over the right one: with them there is nothing missing, without nothing left."""
    rng = np.random.default_rng(13)
    stream = Stream()
    for k in range(46):
        luma, truth = play(scene(21), [Actor(-20 + 4 * k, 36, 15)], rng)
        target = stream.frame(luma, truth)
        if truth.sum() > 300:
            assert iou(target, truth) > 0.85
    assert truth.max() == 0
    assert target.mean() < 0.005


def test_someone_covers_the_whole_picture_and_goes_away() -> None:
    rng = np.random.default_rng(14)
    stream = Stream()
    for k in range(30):
        radius = 15 + 9 * min(k, 29 - k)
        luma, truth = play(scene(21), [Actor(64, 36, radius)], rng)
        target = stream.frame(luma, truth)
        assert iou(target, truth) > 0.8
    assert iou(target, truth) > 0.8


def test_an_empty_room_stays_empty_though_the_model_sees_things() -> None:
    """Blobs that the model takes half for a person, somewhere else in each frame, mostly disappear."""
    rng = np.random.default_rng(15)
    stream, ours, models = Stream(), [], []
    for _ in range(30):
        luma, _ = play(scene(21), [], rng)
        mask = (0.9 * disc(rng.uniform(0, SHAPE[1]), rng.uniform(0, SHAPE[0]), 6)).astype(np.float32)
        ours.append(float((stream.frame(luma, mask) >= 0.5).mean()))
        models.append(float((mask >= 0.5).mean()))
    assert np.mean(ours[5:]) < 0.25 * np.mean(models[5:])


@pytest.mark.parametrize("gain", [0.6, 1.4])
def test_a_jump_of_the_exposure_does_no_harm(gain: float) -> None:
    """From one frame to the next all is darker or brighter: not worse than the model, at once and later."""
    rng = np.random.default_rng(16)
    stream = Stream()
    for k in range(16):
        luma, truth = play(scene(21), [Actor(40 + k, 36, 18)], rng)
        if k >= 8:
            luma = np.clip(luma * gain, 0, 255).astype(np.uint8)
        target = stream.frame(luma, truth)
        assert iou(target, truth) > 0.9


def test_a_jump_of_the_camera_leaves_no_ghost() -> None:
    """Pushed by a quarter of the picture: the old place of the person is free at once."""
    rng = np.random.default_rng(17)
    stream = Stream()
    wide = scene(21, (SHAPE[0], SHAPE[1] + 40))
    for k in range(12):
        pushed = 32 if k >= 6 else 0
        room = np.ascontiguousarray(wide[:, pushed : pushed + SHAPE[1]])
        luma, truth = play(room, [Actor(80 - pushed, 36, 14)], rng)
        target = stream.frame(luma, truth)
        if k == 6:
            assert target[disc(86, 36, 8) > 0.5].mean() < 0.1
        assert iou(target, truth) > 0.85


def test_a_cut_between_two_scenes_with_people_leaves_no_ghost() -> None:
    rng = np.random.default_rng(18)
    stream = Stream()
    for _ in range(6):
        luma, truth = play(scene(21), [Actor(40, 36, 18)], rng)
        stream.frame(luma, truth)
    luma, truth = play(scene(77), [Actor(95, 36, 18)], rng)
    mask = model_of(truth, rng)
    assert np.array_equal(stream.frame(luma, mask), mask)


def test_repeated_frames_change_nothing() -> None:
    """A 15 fps camera in a 30 fps stream: the same picture and the same mask again."""
    rng = np.random.default_rng(19)
    stream = Stream()
    for k in range(12):
        luma, truth = play(scene(21), [Actor(40 + 3 * k, 36, 18)], rng)
        mask = model_of(truth, rng)
        first = stream.frame(luma, mask)
        again = stream.frame(luma, mask)
    assert iou(again, truth) >= iou(first, truth) - 0.02
    assert np.abs(again - first).mean() < 0.01


def test_dropped_frames_only_make_the_steps_larger() -> None:
    """Every third frame of a walk arrives; their numbers have gaps."""
    rng = np.random.default_rng(20)
    stream = Stream()
    for k in range(0, 36, 3):
        luma, truth = play(scene(21), [Actor(24 + 2 * k, 36, 16)], rng)
        target = stream.frame(luma, truth, skipped=2 if k else 0)
        assert iou(target, truth) > 0.9
    assert stream.seq == 33
    assert not stream.fusion.observe(observed(truth, 32))


def test_another_resolution_begins_anew() -> None:
    stream = Stream()
    for _ in range(3):
        stream.frame(scene(1), disc(40, 30, 20))
    shape = (90, 160)
    after = disc(80, 45, 25, shape)
    assert np.array_equal(stream.frame(scene(1, shape), after), after)
    assert np.array_equal(stream.frame(scene(1), disc(40, 30, 20)), disc(40, 30, 20))


def test_a_wrong_colour_beside_the_person_is_told_apart_by_chroma() -> None:
    """Person and room of equal luma: only chroma shows the edge, and it steadies a jittering mask."""
    errors = []
    for coloured in (False, True):
        rng = np.random.default_rng(22)
        fusion, previous = Fusion(), None
        luma = np.full(SHAPE, 120, np.uint8)
        truth = disc(60, 36, 20)
        u = np.where(truth >= 0.5, 150, 110).astype(np.uint8)
        for k in range(12):
            chroma = (u, luma) if coloured else None
            fusion.advance(previous, luma, uniform_flow(0, 0), k, k * FRAME_NS, chroma)
            previous = luma
            fusion.observe(observed(model_of(truth, rng), k))
        target = fusion.target()
        assert target is not None
        errors.append(float(np.abs(target.probability - truth).mean()))
    assert errors[1] < 0.8 * errors[0]


def with_arm(k: int, room: U8, rng: np.random.Generator) -> tuple[U8, F32, F32]:
    """Someone stretches out an arm: picture, mask, and what a model says that hardly sees the arm."""
    body = Actor(30, 36, 16)
    picture, truth = play(room, [body, Actor(56 + 3 * (k - 20), 36, 7)], rng)
    _, seen = play(room, [body], rng)
    return picture, truth, np.maximum(seen, 0.2 * truth).astype(np.float32)


@pytest.mark.parametrize(("background", "least", "most"), [(True, 0.4, 1.0), (False, 0.0, 0.05)])
def test_an_arm_that_the_model_overlooks_differs_from_the_known_background(
    background: bool, least: float, most: float
) -> None:
    rng, stream, found = np.random.default_rng(31), Stream(FusionSettings(background=background)), []
    room = scene(21)
    for _ in range(20):
        picture, truth = play(room, [Actor(30, 36, 16)], rng)
        stream.frame(picture, truth)
    for k in range(20, 40):
        picture, truth, mask = with_arm(k, room, rng)
        target = stream.frame(picture, mask)
        arm = (truth >= 0.5) & (mask < 0.5)
        found.append(float((target[arm] >= 0.5).mean()))
    assert least <= np.mean(found) <= most


def test_a_thing_that_was_moved_becomes_background() -> None:
    """A box is put into the room: it may show for a moment, and is gone after a second."""
    rng, stream = np.random.default_rng(32), Stream()
    before, after = scene(21), scene(21)
    after[20:40, 90:115] = 255 - after[20:40, 90:115] // 2
    for k in range(60):
        picture, truth = play(before if k < 20 else after, [Actor(30, 36, 16)], rng)
        target = stream.frame(picture, model_of(truth, rng))
    assert target[22:38, 92:113].max() < 0.1


def test_a_camera_that_moves_makes_nobody() -> None:
    """Everything differs from the background as it was seen before, so that says nothing."""
    rng, stream, wrong = np.random.default_rng(33), Stream(), []
    large = scene(21, (SHAPE[0], SHAPE[1] + 200))
    for k in range(60):
        shift = 0 if k < 20 else 2 * (k - 20)
        room = np.ascontiguousarray(large[:, shift : shift + SHAPE[1]])
        picture, truth = play(room, [Actor(60, 36, 16)], rng)
        target = stream.frame(picture, truth)
        wrong.append(float((target[truth < 0.01] >= 0.5).mean()))
    assert max(wrong) < 0.02
    assert stream.fusion.scene_cuts == 0
