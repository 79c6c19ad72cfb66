"""The recursion of masks: what must hold whatever the pictures are, and when a stream misbehaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg import flow
from edge_seg.fusion import Fusion, FusionSettings
from edge_seg.types import F32, U8, BlockFlow, Mask

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
    vectors = np.empty((*grid, 2), np.float32)
    vectors[...] = dx, dy
    return BlockFlow(vectors, np.zeros(grid, np.float32), np.ones(grid, np.float32), block, shape)


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
        for _ in range(6):
            luma = np.clip(scene(8).astype(int) + rng.integers(-6, 7, SHAPE), 0, 255).astype(np.uint8)
            before = stream.frame(luma, np.zeros(SHAPE, np.float32), uniform_flow(0, 0))
        assert stream.fusion.observe(observed(np.ones(SHAPE, np.float32), stream.seq - late))
        target = stream.fusion.target()
        assert target is not None
        changes.append(float((target.probability - before).mean()))
    assert changes[0] > changes[1] > changes[2] > 0


def test_masks_older_than_the_history_are_refused() -> None:
    stream = Stream(FusionSettings(history=2))
    for _ in range(6):
        stream.frame(scene(1), disc(40, 30, 20))
    assert not stream.fusion.observe(observed(disc(40, 30, 20), 2))
    assert stream.fusion.observe(observed(disc(40, 30, 20), 3))


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
