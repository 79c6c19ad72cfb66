"""The filter's kernels compute what their NumPy reference says, and do not trust their arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg import kalman_reference
from tests.drawn_masks import smooth_mask

native: Any = pytest.importorskip("edge_seg._kalman", reason="the C extension is not built")
kernels: list[Any] = [native, kalman_reference]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.sampled_from([1, 2, 7, 31, 32, 64, 160, 256, 257, 300]),
    st.sampled_from([0.0, 0.01, 0.5]),
    st.sampled_from([0.0, 2.0]),
    st.booleans(),
)
def test_update_equals_its_reference(
    seed: int, rows: int, cols: int, disagreement: float, chroma: float, own_variance: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (rows, cols)
    luma = (rng.integers(0, 8, shape) * 9 + 100).astype(np.uint8)
    carried = smooth_mask(rng, shape)
    noise = rng.normal(0, 1, shape) * (rng.random(shape) < 0.02) * disagreement
    measured = np.clip(carried + noise, 0, 1).astype(np.float32)
    variances = [rng.uniform(1e-3, 0.3, shape).astype(np.float32) for _ in range(2)]
    results = []
    for kernel in kernels:
        out, variance = np.full(shape, np.nan, np.float32), variances[0].copy()
        picture = (luma, luma[::-1].copy(), np.roll(luma, 1, 1))
        noise_of = variances[1] if own_variance else None
        kernel.update(picture, carried, variance, measured, noise_of, out, 0.25, 0.2, 40.0, chroma, 0.1, None)
        results.append((out, variance))
    assert np.abs(results[0][0] - results[1][0]).max() < 2e-5
    assert np.abs(results[0][1] - results[1][1]).max() < 1e-6


@pytest.mark.parametrize("wrong", range(6))
def test_update_refuses_what_does_not_fit(wrong: int) -> None:
    arguments: list[Any] = [np.zeros((16, 24), np.uint8)]
    arguments += [np.full((16, 24), 0.1, np.float32) for _ in range(5)]
    native.update((arguments[0],) * 3, *arguments[1:], 0.25, 0.2, 26.0, 2.0, 0.1, None)
    arguments[wrong] = arguments[wrong][:-1]
    with pytest.raises(ValueError, match="expected shape"):
        native.update((arguments[0],) * 3, *arguments[1:], 0.25, 0.2, 26.0, 2.0, 0.1, None)


def test_uncertainty_equals_its_reference() -> None:
    measured = np.random.default_rng(0).random((37, 53), np.float32)
    results = [np.empty_like(measured) for _ in kernels]
    for kernel, variance in zip(kernels, results, strict=True):
        kernel.uncertainty(measured, variance, 0.25, 0.2)
    assert np.abs(results[0] - results[1]).max() < 1e-6
    with pytest.raises(ValueError, match="expected shape"):
        native.uncertainty(measured, results[0][:-1], 0.25, 0.2)
