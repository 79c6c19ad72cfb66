"""What the matte does to edges, on drawn pictures whose true alpha is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_seg import matte
from edge_seg.matte import MatteSettings, Quality, refine, refine_reference, render
from edge_seg.pyramid import Yuv444, shrink
from edge_seg.types import ALPHA_ONE, F32, GAIN_ONE, I420, U8, Mask, is_fitted

WIDTH, HEIGHT, COLS, ROWS = 640, 360, 256, 144


def person() -> U8:
    """A round figure. Shape: (HEIGHT, WIDTH), 0 or 255."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(drawn, (320, 180), 100, 255, -1)
    return drawn


def picture(alpha: U8, front: tuple[int, int, int], back: tuple[int, int, int], noise: float = 2.0) -> I420:
    """`front` over `back`, with the noise of a camera."""
    rng = np.random.default_rng(0)
    out = I420.allocate(WIDTH, HEIGHT)
    for plane, f, b in zip(out.planes, front, back, strict=True):
        a = cv2.resize(alpha, (plane.shape[1], plane.shape[0]), interpolation=cv2.INTER_AREA) / 255
        plane[:] = np.clip(b + a * (f - b) + rng.normal(0, noise, plane.shape), 0, 255)
    return out


def unsure(alpha: U8, shift: int, blur: float) -> F32:
    """A model's mask of it: displaced, and soft at the edge. Shape: (ROWS, COLS)."""
    moved = np.roll(alpha, shift, axis=1)
    small = cv2.resize(moved, (COLS, ROWS), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.asarray(cv2.GaussianBlur(small, (0, 0), blur), np.float32)


def mask_of(probability: F32, seq: int = 7) -> Mask:
    return Mask(probability=probability, seq=seq, observed_seq=seq, observed_ns=0)


def error(probability: F32, frame: I420, truth: U8, quality: Quality) -> float:
    """Mean absolute difference from the truth, times 1000."""
    alpha = refine(mask_of(probability), shrink(frame, (COLS, ROWS)), MatteSettings(quality=quality))
    return float(np.abs(render(alpha, frame).astype(float) - truth).mean() / 255 * 1000)


@pytest.mark.parametrize(
    ("front", "back"),
    [((60, 128, 128), (190, 128, 128)), ((120, 100, 160), (120, 140, 110))],
    ids=["told apart by luma", "told apart by chroma only"],
)
def test_a_displaced_soft_mask_is_drawn_to_the_edge(
    front: tuple[int, int, int], back: tuple[int, int, int]
) -> None:
    truth = person()
    frame, probability = picture(truth, front, back), unsure(truth, shift=4, blur=3.0)
    fast, balanced, best = (error(probability, frame, truth, q) for q in ("fast", "balanced", "best"))
    assert balanced < 0.5 * fast
    assert best < balanced


def test_a_true_mask_is_left_alone() -> None:
    """Among textures that a plain guided filter would draw into alpha."""
    truth = person()
    frame = picture(truth, (100, 128, 128), (140, 128, 128), noise=25.0)
    probability = unsure(truth, shift=0, blur=0.01)
    assert error(probability, frame, truth, "balanced") <= error(probability, frame, truth, "fast") + 0.5


def test_without_contrast_the_mask_stays_as_it_is() -> None:
    truth = person()
    frame = picture(truth, (120, 128, 128), (120, 128, 128), noise=1.0)
    probability = unsure(truth, shift=0, blur=2.0)
    assert abs(error(probability, frame, truth, "balanced") - error(probability, frame, truth, "fast")) < 2.0


@pytest.mark.parametrize("quality", ["fast", "balanced", "best"])
@pytest.mark.parametrize(("level", "alpha"), [(0.0, 0), (1.0, 255), (1 / 256, 0), (255 / 256, 255)])
def test_nobody_and_everybody_stay_so(quality: Quality, level: float, alpha: int) -> None:
    """An int8 model never says 0 or 1 but 1/256 less; what it is sure of must not be blended."""
    frame = picture(person(), (60, 110, 150), (190, 140, 110))
    probability = np.full((ROWS, COLS), level, np.float32)
    refined = refine(mask_of(probability), shrink(frame, (COLS, ROWS)), MatteSettings(quality=quality))
    assert (render(refined, frame) == alpha).all()


@pytest.mark.parametrize("quality", ["fast", "balanced"])
def test_a_mask_that_is_not_a_number_shows_the_background(quality: Quality) -> None:
    frame = picture(person(), (60, 110, 150), (190, 140, 110))
    refined = refine(
        mask_of(np.full((ROWS, COLS), np.nan, np.float32)),
        shrink(frame, (COLS, ROWS)),
        MatteSettings(quality),
    )
    assert not render(refined, frame).any()


def test_far_from_the_edge_nothing_shows() -> None:
    """Things in the room that look just like the person do not show through."""
    truth = person()
    frame = picture(truth, (60, 110, 150), (190, 140, 110))
    frame.y[20:60, 20:60], frame.u[10:30, 10:30], frame.v[10:30, 10:30] = 60, 110, 150
    refined = refine(
        mask_of(unsure(truth, shift=4, blur=3.0)), shrink(frame, (COLS, ROWS)), MatteSettings(quality="best")
    )
    assert render(refined, frame)[:70, :70].max() == 0


# Small windows are ill-conditioned on this noise: a second pass would magnify the rounding of the first.
@pytest.mark.parametrize(
    ("radius", "smoothing", "passes"), [(4, 2, 1), (4, 2, 2), (1, 0, 1), (5, 3, 1), (16, 16, 1), (16, 16, 2)]
)
@pytest.mark.parametrize(("rows", "cols"), [(144, 256), (37, 51), (3, 2), (1, 1), (1, 40), (40, 1)])
def test_native_equals_reference(rows: int, cols: int, radius: int, smoothing: int, passes: int) -> None:
    native = pytest.importorskip("edge_seg._matte", reason="the extension was not built").refine
    rng = np.random.default_rng(rows)
    field = cv2.GaussianBlur(rng.random((rows, cols)).astype(np.float32), (0, 0), 5)
    mask = np.clip((field - field.mean()) * 15 + 0.5, 0, 1).astype(np.float32)
    y, u, v = rng.integers(16, 236, (3, rows, cols), dtype=np.uint8)
    results = []
    for kernel in (native, refine_reference):
        gain, offset = np.full((3, rows, cols), 12345, np.int16), np.empty((rows, cols), np.int16)
        foreground = np.zeros((3, rows, cols), np.uint8)
        kernel(mask, y, u, v, gain, offset, foreground, radius, smoothing, passes, 1e-3, 2.0, 0.05,
               0.05, 0.25, 1.25, 1 / 64, 6.0, -1.0)  # fmt: skip
        gain[:, ~is_fitted(offset)] = 0  # it does not count there, and may never be written
        used = gain.any(axis=0)
        results.append((gain / GAIN_ONE, offset / ALPHA_ONE, np.where(used, foreground, 0).astype(int)))
    for ours, theirs, tolerance in zip(*results, (2e-2, 2e-2, 1), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance)


def test_native_drawing_out_equals_its_reference() -> None:
    native = pytest.importorskip("edge_seg._matte", reason="the extension was not built").draw_out
    mask = np.random.default_rng(3).random((37, 51)).astype(np.float32)
    mask[0, :4] = 0, 1, np.nan, 1 / 64
    ours, theirs = np.empty(mask.shape, np.int16), np.empty(mask.shape, np.int16)
    native(mask, ours, matte.LEVEL)
    matte.draw_out_reference(mask, theirs, matte.LEVEL)
    np.testing.assert_allclose(ours, theirs, atol=1)  # fused multiplications round otherwise
    assert ours[0, 2] == 0
    with pytest.raises(ValueError, match="size"):
        native(mask, ours[:5], matte.LEVEL)


def test_bad_arguments_are_refused() -> None:
    small = Yuv444(*(np.zeros((9, 16), np.uint8) for _ in range(3)), matrix=I420.allocate(2, 2).matrix)
    with pytest.raises(ValueError, match="mask's shape"):
        refine(mask_of(np.zeros((8, 16), np.float32)), small, MatteSettings())
    with pytest.raises(ValueError, match="out of its range"):
        refine(mask_of(np.zeros((9, 16), np.float32)), small, MatteSettings(radius=400))


def test_alpha_keeps_the_number_of_its_mask() -> None:
    frame = picture(person(), (60, 110, 150), (190, 140, 110))
    for quality in ("fast", "balanced", "best"):
        refined = refine(
            mask_of(unsure(person(), 0, 2.0), seq=41), shrink(frame, (COLS, ROWS)), MatteSettings(quality)
        )
        assert refined.seq == 41


def test_the_fallback_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = person()
    frame = picture(truth, (60, 110, 150), (190, 140, 110))
    small, mask = shrink(frame, (COLS, ROWS)), mask_of(unsure(truth, 4, 3.0))
    native = render(refine(mask, small, MatteSettings()), frame).astype(int)
    monkeypatch.setattr(matte, "kernel", refine_reference)
    difference = np.abs(render(refine(mask, small, MatteSettings()), frame) - native)
    assert difference.max() <= 255 / 32 + 1  # a node at the threshold of the negligible may fall either way
    assert difference.mean() < 0.01
