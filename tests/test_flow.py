"""The block flow: what it must find, what it must never do, and that both implementations agree."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_seg import flow_reference
from edge_seg.flow import FlowSettings, compose, doubted, estimate, prepare, round_trip_px
from edge_seg.types import U8, BlockFlow

native = pytest.importorskip("edge_seg._flow", reason="built without a compiler: only the reference exists")


def texture(height: int, width: int, seed: int = 0, sigma: float = 2.0) -> U8:
    """A smooth random picture over the whole range of luma."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.clip(128 + smooth / max(float(smooth.std()), 1e-6) * 40, 0, 255).astype(np.uint8)


def moved_pair(dx: int, dy: int, height: int = 96, width: int = 128) -> tuple[U8, U8]:
    """(previous, current) such that what is at (x, y) in current was at (x + dx, y + dy) in previous."""
    scene = texture(height + 80, width + 80)
    return scene[40 + 0 : 40 + height, 40 : 40 + width].copy(), scene[
        40 + dy : 40 + dy + height, 40 + dx : 40 + dx + width
    ].copy()


def inner(field: NDArray[np.float32], blocks: int) -> NDArray[np.float32]:
    return field[blocks:-blocks, blocks:-blocks]


def run(
    module: object,
    previous: U8,
    current: U8,
    hint: NDArray[np.int16] | None,
    active: U8 | None,
    settings: FlowSettings,
) -> list:
    """(steps, residual, texture, mean residual, what the pictures were prepared as, their means)."""
    height, width = current.shape
    shape = tuple(-(-side // settings.block_px) for side in current.shape)
    out = [np.full(shape, np.nan, np.float32) for _ in "rt"]
    steps = np.full((*shape, 2), 9999, np.int16)
    prepared = [module.prepare(picture) for picture in (previous, current)]  # type: ignore[attr-defined]
    mean_residual = module.estimate(  # type: ignore[attr-defined]
        *(memory for memory, _ in prepared),
        height,
        width,
        hint,
        active,
        steps,
        *out,
        settings.block_px,
        settings.levels,
        settings.search_px,
        settings.penalty,
    )
    pictures = [np.frombuffer(memory, np.uint8) for memory, _ in prepared]
    return [steps, *out, mean_residual, *pictures, *(mean for _, mean in prepared)]


def test_what_stands_still_under_a_cameras_noise_has_no_vector() -> None:
    rng = np.random.default_rng(3)
    scene = texture(144, 256).astype(np.float32)
    previous, current = (
        np.clip(np.rint(scene + rng.normal(0, 1.5, scene.shape)), 0, 255).astype(np.uint8) for _ in range(2)
    )
    assert (estimate(previous, current).steps == 0).all(-1).mean() > 0.98


def test_slow_motion_is_motion() -> None:
    scene = cv2.resize(texture(144, 256), (2048, 1152), interpolation=cv2.INTER_CUBIC)
    moved = np.roll(scene, -1, axis=1)  # an eighth of a pixel of the small picture
    previous, current = (cv2.resize(at, (256, 144), interpolation=cv2.INTER_AREA) for at in (scene, moved))
    vectors = inner(estimate(previous, current).vectors, 4)
    np.testing.assert_allclose(np.median(vectors, axis=(0, 1)), (1 / 8, 0), atol=1 / 16)


@pytest.mark.parametrize("block_px", [2, 4, 8])
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (0, -2), (5, 3), (-11, 7), (16, -16)])
def test_integer_translations_are_recovered(dx: int, dy: int, block_px: int) -> None:
    found = estimate(*moved_pair(dx, dy), FlowSettings(block_px=block_px))
    vectors = inner(found.vectors, 24 // block_px)
    np.testing.assert_allclose(vectors, np.broadcast_to(np.float32((dx, dy)), vectors.shape), atol=1 / 16)
    assert inner(found.residual, 24 // block_px).max() < 1.0
    assert np.median(inner(found.confidence, 24 // block_px)) > 0.8


def test_a_fraction_of_a_pixel_is_found() -> None:
    scene = texture(96, 128)
    shift = np.float32([[1, 0, 0.4], [0, 1, -0.3]])
    current = cv2.warpAffine(scene, shift, (128, 96), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    vectors = inner(estimate(scene, current).vectors, 4)
    assert np.abs(vectors.mean((0, 1)) - (-0.4, 0.3)).max() < 0.1


@pytest.mark.parametrize("value", [0, 16, 128, 255])
def test_flat_pictures_stand_still(value: int) -> None:
    flat = np.full((72, 128), value, np.uint8)
    found = estimate(flat, flat)
    assert not found.vectors.any()
    assert not found.residual.any()
    assert (found.confidence == 1).all()


def test_equal_frames_have_no_flow_whatever_the_hint() -> None:
    frame = texture(72, 128)
    hint = estimate(*moved_pair(6, 3, 72, 128))
    found = estimate(frame, frame, hint=hint)
    assert not found.vectors.any()
    assert (found.residual == 0).all()
    assert (found.confidence == 1).all()


def test_a_flat_block_is_not_trusted_to_move() -> None:
    """A textured square moves over a flat wall: the square shows its motion, the wall cannot."""
    previous = np.full((96, 128), 90, np.uint8)
    current = previous.copy()
    previous[30:62, 30:62] = current[30:62, 38:70] = texture(32, 32)
    found = estimate(previous, current)
    moving = np.abs(found.vectors).max(-1) > 1
    flat = cv2.Laplacian(current, cv2.CV_32F, ksize=3)
    flat = cv2.dilate(np.abs(flat), np.ones((17, 17)))[2::4, 2::4] == 0
    assert (found.confidence[flat & moving] < 0.1).all()
    square = found.vectors[8:15, 10:17]
    np.testing.assert_allclose(square, np.broadcast_to(np.float32((-8, 0)), square.shape), atol=0.5)


def test_unmatched_content_shows_in_residual_and_confidence() -> None:
    previous, current = moved_pair(3, 0)
    current[32:64, 48:80] = texture(32, 32, seed=9, sigma=1.0)
    found = estimate(previous, current)
    new = (slice(10, 14), slice(14, 18))
    assert found.residual[new].min() > 4 * np.median(found.residual)
    assert found.confidence[new].max() < 0.5 * np.median(found.confidence)


def test_the_hint_finds_motion_beyond_the_search() -> None:
    narrow = FlowSettings(levels=1, search_px=0)
    previous, current = moved_pair(13, 0)
    far = estimate(previous, current, FlowSettings(search_px=8))
    hinted = FlowSettings(levels=2, search_px=0)
    assert np.median(estimate(previous, current, narrow).vectors[..., 0]) != 13
    assert np.median(estimate(previous, current, hinted, hint=far).vectors[..., 0]) == pytest.approx(
        13, abs=0.1
    )


def test_a_hint_of_another_grid_is_ignored() -> None:
    previous, current = moved_pair(3, 1)
    other = estimate(previous[:48], current[:48])
    with_hint = estimate(previous, current, hint=other)
    np.testing.assert_array_equal(with_hint.vectors, estimate(previous, current).vectors)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    block_px=st.sampled_from([2, 4, 8]),
    levels=st.integers(1, 4),
    search=st.integers(0, 16),
    penalty=st.sampled_from([0, 8, 100]),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["noise", "extremes", "smooth"]),
    hinted=st.booleans(),
    partly=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_grid_gives_finite_bounded_equal_results(
    height: int,
    width: int,
    block_px: int,
    levels: int,
    search: int,
    penalty: int,
    seed: int,
    kind: str,
    hinted: bool,
    partly: bool,
) -> None:
    """Both implementations agree to the bit on every size; a vector never points far out of the picture."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        pictures = rng.integers(0, 256, (2, height, width), np.uint8)
    elif kind == "extremes":
        pictures = rng.integers(0, 2, (2, height, width), np.uint8) * np.uint8(255)
    else:
        pictures = np.stack([texture(height, width, seed), texture(height, width, seed + 1)])
    chosen = FlowSettings(block_px=block_px, levels=levels, search_px=search, penalty=penalty)  # type: ignore[arg-type]
    shape = (-(-height // block_px), -(-width // block_px), 2)
    hint = rng.integers(-32768, 32768, shape).astype(np.int16) if hinted else None
    active = rng.integers(0, 2, shape[:2], np.uint8) if partly else None
    found = run(native, *pictures, hint, active, chosen)
    for a, b in zip(found, run(flow_reference, *pictures, hint, active, chosen), strict=True):
        np.testing.assert_array_equal(a, b)
    flow = BlockFlow(*found[:4], block_px, (height, width))
    vectors = flow.vectors
    assert (flow.residual >= 0).all()
    assert (flow.residual <= 255).all()
    assert flow.mean_residual == pytest.approx(flow.residual.mean(), rel=1e-5)
    assert (flow.confidence >= 0).all()
    assert (flow.confidence <= 1).all()
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] * block_px
    assert (x + vectors[..., 0] >= -24).all()
    assert (x + vectors[..., 0] <= width + 24).all()
    assert (y + vectors[..., 1] >= -24).all()
    assert (y + vectors[..., 1] <= height + 24).all()


def test_a_view_into_a_larger_picture_is_accepted() -> None:
    previous, current = moved_pair(4, 2)
    wide = np.zeros((96, 200), np.uint8)
    wide[:, :128] = current
    np.testing.assert_array_equal(
        estimate(previous, wide[:, :128]).vectors, estimate(previous, current).vectors
    )


def test_wrong_arguments_are_refused() -> None:
    good = texture(32, 48)
    with pytest.raises(ValueError, match="one shape"):
        estimate(good, good[:16])
    with pytest.raises(ValueError, match="one shape"):
        estimate(good[None], good[None])
    with pytest.raises((ValueError, TypeError)):
        estimate(good.astype(np.float32), good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows"):
        estimate(np.asfortranarray(good), np.asfortranarray(good))
    memory = prepare(good).memory
    steps, residual = np.empty((8, 12, 2), np.int16), np.empty((8, 12), np.float32)
    with pytest.raises(ValueError, match="texture"):
        native.estimate(memory, memory, 32, 48, None, None, steps, residual, residual[:, 1:], 4, 2, 8, 8)
    with pytest.raises(ValueError, match="previous"):
        native.estimate(memory[1:], memory, 32, 48, None, None, steps, residual, residual, 4, 2, 8, 8)
    with pytest.raises(ValueError, match="2048 pixels a side"):
        native.prepare(np.empty((1, 2049), np.uint8))


def test_shape_and_types_are_those_of_the_contract() -> None:
    found = estimate(*moved_pair(1, 1, 50, 70))
    assert isinstance(found, BlockFlow)
    assert found.vectors.shape == (13, 18, 2)
    assert found.residual.shape == found.confidence.shape == (13, 18)
    assert found.grid_shape == (50, 70)
    assert {found.vectors.dtype, found.residual.dtype, found.confidence.dtype} == {np.dtype(np.float32)}


def test_a_hint_in_other_blocks_is_used() -> None:
    previous, current = moved_pair(13, 0)
    far = estimate(previous, current, FlowSettings(block_px=8, search_px=8))
    found = estimate(previous, current, FlowSettings(levels=2, search_px=0), hint=far)
    assert np.median(found.vectors[..., 0]) == pytest.approx(13, abs=0.1)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 30.0), (1.3, 0.0), (0.7, 0.0)])
def test_motion_is_found_through_a_jump_of_the_exposure(gain: float, offset: float) -> None:
    previous, current = moved_pair(5, -3)
    brighter = np.clip(np.rint((current.astype(np.float32) - 16) * gain + 16 + offset), 0, 255).astype(
        np.uint8
    )
    found = estimate(previous, brighter)
    assert np.abs(np.median(inner(found.vectors, 6), (0, 1)) - (5, -3)).max() < 0.2
    assert np.median(found.residual) < 3


def test_something_bright_entering_is_no_change_of_exposure() -> None:
    previous, _ = moved_pair(0, 0)
    current = previous.copy()
    current[:, :50] = 230
    rest = (slice(None), slice(16, None))
    found = estimate(previous, current)
    assert not found.vectors[rest].any()
    assert not found.residual[rest].any()


@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_a_still_scene_under_noise_stands_still(sigma: float) -> None:
    scene = texture(96, 128).astype(np.float32)
    rng = np.random.default_rng(3)
    a, b = (np.clip(scene + rng.normal(0, sigma, scene.shape), 0, 255).astype(np.uint8) for _ in "ab")
    for block_px in (2, 4):
        speed = np.linalg.norm(estimate(a, b, FlowSettings(block_px=block_px)).vectors, axis=-1)  # type: ignore[arg-type]
        assert np.percentile(speed, 99) < 0.1 * sigma + 0.2


def test_the_edge_of_a_moving_thing_is_found_to_two_pixels() -> None:
    """A disk moves over another texture: the area that moves with it is the disk's, within its rim."""
    yy, xx = np.mgrid[0:96, 0:128]
    ground, thing = texture(96, 160, 1), texture(96, 160, 2)

    def frame(shift: int) -> U8:
        disk = (yy - 48) ** 2 + (xx - 60 - shift) ** 2 < 24**2
        return np.where(disk, thing[:, 20 - shift : 148 - shift], ground[:, 10:138]).astype(np.uint8)

    found = estimate(frame(0), frame(6), FlowSettings(block_px=2))
    moves = np.repeat(np.repeat(found.vectors[..., 0] < -3, 2, 0), 2, 1)
    disk = (yy - 48) ** 2 + (xx - 66) ** 2 < 24**2
    assert (moves & disk).sum() / (moves | disk).sum() > 0.9


def test_inactive_blocks_cost_precision_not_meaning() -> None:
    previous, current = moved_pair(5, 3)
    active = np.zeros((24, 32), np.uint8)
    active[:, 16:] = 1
    found, full = estimate(previous, current, active=active), estimate(previous, current)
    np.testing.assert_array_equal(found.vectors[:, 16:], full.vectors[:, 16:])
    left = found.vectors[6:-6, 6:16]
    assert np.abs(left - (5, 3)).max() < 2.0
    assert found.residual[6:-6, 6:16].mean() >= full.residual[6:-6, 6:16].mean()
    assert (found.residual[:, :15] != full.residual[:, :15]).any()
    with pytest.raises(ValueError, match="active"):
        estimate(previous, current, active=active[:, ::2])


def test_composed_flow_leads_over_both_frames() -> None:
    scene = texture(160, 200)
    a, b, c = (scene[40:112, s : s + 128].copy() for s in (30, 34, 37))
    both = compose(estimate(b, c), estimate(a, b))
    np.testing.assert_allclose(inner(both.vectors, 5)[..., 0], 7, atol=0.2)
    assert both.grid_shape == (72, 128)
    with pytest.raises(ValueError, match="one grid"):
        compose(estimate(b, c, FlowSettings(block_px=8)), estimate(a, b))


def test_the_round_trip_opens_where_something_is_uncovered() -> None:
    previous, current = texture(96, 128, 1), texture(96, 128, 1)
    thing = texture(40, 40, 2)
    previous[28:68, 30:70], current[28:68, 42:82] = thing, thing
    backward = estimate(previous, current)
    error = round_trip_px(backward, estimate(current, previous, FlowSettings(block_px=8)))
    uncovered, square, ground = error[8:16, 8:10], error[9:15, 13:18], error[:, 26:]
    assert np.median(square) < 0.5
    assert ground.max() < 0.5
    assert np.median(uncovered) > 2
    trusted = doubted(backward, error)
    assert trusted[8:16, 8:10].mean() < 0.5 * backward.confidence[8:16, 8:10].mean()
    assert (trusted <= backward.confidence).all()


@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (144, 256)])
def test_a_prepared_picture_is_a_copy_of_it(shape: tuple[int, int]) -> None:
    picture = texture(*shape)
    prepared = prepare(picture)
    kept = picture.copy()
    picture[:] = 0
    np.testing.assert_array_equal(prepared.picture(), kept)
    assert prepared.shape == shape
    assert abs(prepared.mean - kept.mean()) < 1.5


def test_prepared_pictures_give_what_pictures_give() -> None:
    previous, current = moved_pair(5, 3)
    expected = estimate(previous, current)
    for a, b in (
        (prepare(previous), prepare(current)),
        (prepare(previous), current),
        (previous, prepare(current)),
    ):
        found = estimate(a, b)
        np.testing.assert_array_equal(found.vectors, expected.vectors)
        np.testing.assert_array_equal(found.residual, expected.residual)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
    with pytest.raises(ValueError, match="one shape"):
        estimate(prepare(previous), prepare(current[:32]))


def test_an_exposure_jump_is_seen_in_prepared_pictures() -> None:
    previous, current = moved_pair(5, -3)
    brighter = np.clip(current.astype(np.int16) + 30, 0, 255).astype(np.uint8)
    found = estimate(prepare(previous), prepare(brighter))
    np.testing.assert_array_equal(found.vectors, estimate(previous, brighter).vectors)
    assert np.median(found.residual) < 3


def test_motion_that_goes_on_is_followed_beyond_the_search() -> None:
    """The hint leads the search itself, and so the range grows from frame to frame."""
    scene = texture(96, 400)
    hint, settings = None, FlowSettings(search_px=4)
    x = 20
    for speed in (6, 8, 10, 12, 14, 16, 18, 20):
        previous, x = scene[:, x : x + 128].copy(), x + speed
        hint = estimate(previous, scene[:, x : x + 128].copy(), settings, hint=hint)
        assert np.median(hint.vectors[..., 0]) == pytest.approx(speed, abs=0.1)
