"""The carrying kernel computes what its NumPy reference says, and does not trust its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg import carry_reference
from tests.drawn_masks import smooth_mask

native: Any = pytest.importorskip("edge_seg._carry", reason="the C extension is not built")
kernels: list[Any] = [native, carry_reference]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.sampled_from([1, 2, 5, 23, 64, 90, 256, 257]),
    st.sampled_from([1, 2, 3, 4, 8, 16]),
    st.sampled_from([0.0, 0.4, 3.0, 30.0]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 0.7, 1.0]),
)
def test_carry_equals_its_reference(
    seed: int, rows: int, cols: int, block: int, speed: float, chroma: float, still: float
) -> None:
    rng = np.random.default_rng(seed)
    shape, grid = (rows, cols), (-(-rows // block), -(-cols // block))
    previous = rng.integers(0, 256, shape, dtype=np.uint8)
    noise = rng.integers(-9, 10, shape) // (1 + 3 * (np.indices(shape)[1] > cols // 2))  # calm on the right
    current = np.clip(previous.astype(int) + noise, 0, 255).astype(np.uint8)
    steps = np.rint(rng.normal(0, speed, (*grid, 2)) * 16).astype(np.int16)
    steps[rng.random(grid) < still] = 0
    residual = rng.uniform(0, 20, grid).astype(np.float32)
    mask, variance = smooth_mask(rng, shape), rng.uniform(0, 0.3, shape).astype(np.float32)
    u, v = (rng.integers(100, 140, shape, dtype=np.uint8) for _ in range(2))
    results = []
    for kernel in kernels:
        out = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        kernel.carry(
            (previous, u, v),
            (current, v, u),
            steps,
            residual,
            block,
            mask,
            variance,
            *out,
            20.0,
            chroma,
            1.0,
            0.001,
            0.0008,
        )
        results.append(out)
    # On this noise a rounding of the place by 1e-6 pixels changes the weights by some 1e-5.
    assert np.abs(results[0][0] - results[1][0]).max() < 2e-4
    assert np.all(np.abs(results[0][1] - results[1][1]) < 2e-4 + 1e-5 * results[1][1])


@pytest.mark.parametrize("kernel", kernels)
def test_two_motions_are_never_mixed(kernel: Any) -> None:
    flat = (np.full((16, 32), 90, np.uint8),) * 3
    mask = np.tile((np.arange(32) % 2).astype(np.float32), (16, 1))
    steps = np.zeros((4, 8, 2), np.int16)
    steps[:, 4:, 0] = 16  # the right half came from one pixel further right
    out, grown = np.empty_like(mask), np.empty_like(mask)
    kernel.carry(
        flat, flat, steps, np.zeros((4, 8), np.float32), 4, mask, mask, out, grown, 16.0, 3.0, 1.0, 0.0, 0.0
    )
    expected = mask.copy()
    expected[:, 16:31] = mask[:, 17:]
    assert np.array_equal(out[:, :31], expected[:, :31])


@pytest.mark.parametrize("step", [-32768, -1000, 1000, 32767])
def test_vectors_out_of_all_bounds_read_nothing_out_of_bounds(step: int) -> None:
    rng = np.random.default_rng(0)
    shape = (40, 70)
    luma, mask = rng.integers(0, 256, shape, dtype=np.uint8), rng.random(shape, dtype=np.float32)
    steps = np.full((10, 18, 2), step, np.int16)
    out = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    residual = np.zeros((10, 18), np.float32)
    picture = (luma, luma, luma)
    native.carry(picture, picture, steps, residual, 4, mask, mask, *out, 13.0, 2.0, 1.0, 0.0, 0.0)
    assert out[0].min() >= 0
    assert out[0].max() <= 1


def _carry_arguments() -> dict[str, Any]:
    luma, field = np.zeros((16, 24), np.uint8), np.zeros((16, 24), np.float32)
    return {
        "previous": (luma, luma, luma),
        "current": (luma, luma, luma),
        "steps": np.zeros((4, 6, 2), np.int16),
        "residual": np.zeros((4, 6), np.float32),
        "block_px": 4,
        "probability": field,
        "variance": field,
        "out_probability": field.copy(),
        "out_variance": field.copy(),
        "like": 13.0,
        "chroma": 2.0,
        "exact": 1.0,
        "drift": 0.0,
        "misfit": 0.0,
    }


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("previous", (np.zeros((16, 23), np.uint8),) * 3, ValueError),
        ("previous", (np.zeros((16, 24), np.float32),) * 3, TypeError),
        ("previous", (np.zeros((16, 24), np.uint8),) * 2, TypeError),
        ("previous", (*(np.zeros((16, 24), np.uint8),) * 2, np.zeros((16, 20), np.uint8)), ValueError),
        ("current", (np.zeros((0, 24), np.uint8),) * 3, ValueError),
        (
            "current",
            (np.zeros((16, 24), np.uint8), np.zeros((8, 12), np.uint8), np.zeros((8, 12), np.uint8)),
            ValueError,
        ),
        ("steps", np.zeros((4, 5, 2), np.int16), ValueError),
        ("steps", np.zeros((4, 6), np.int16), ValueError),
        ("steps", np.zeros((4, 6, 2), np.float32), TypeError),
        ("residual", np.zeros((3, 6), np.float32), ValueError),
        ("block_px", 0, ValueError),
        ("block_px", 8, ValueError),
        ("probability", np.zeros((16, 24), np.float64), TypeError),
        ("variance", np.zeros((15, 24), np.float32), ValueError),
        ("out_probability", np.zeros((16, 48), np.float32)[:, ::2], ValueError),
        ("out_variance", np.zeros((17, 24), np.float32), ValueError),
        ("like", 0.0, ValueError),
        ("chroma", -1.0, ValueError),
    ],
)
def test_carry_refuses_what_does_not_fit(name: str, value: Any, error: type[Exception]) -> None:
    native.carry(*_carry_arguments().values())
    with pytest.raises(error):
        native.carry(*{**_carry_arguments(), name: value}.values())
