"""What the background says, and what it learns: the filter's kernel does as its NumPy reference."""

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


def _arguments(rng: np.random.Generator, shape: tuple[int, int], own_variance: bool) -> dict[str, Any]:
    plate = tuple(rng.integers(60, 180, shape, dtype=np.uint8) for _ in range(3))
    differs = rng.random(shape) < 0.3
    picture = tuple(
        np.clip(plane + np.where(differs, rng.integers(-60, 61, shape), rng.integers(-4, 5, shape)), 0, 255)
        for plane in plate
    )
    carried, measured = smooth_mask(rng, shape), smooth_mask(rng, shape)
    carried_variance, own = rng.uniform(0.05, 0.3, shape), rng.uniform(0.3, 0.5, shape)
    return {
        "picture": tuple(plane.astype(np.uint8) for plane in picture),
        "probability": carried,
        "variance": carried_variance.astype(np.float32),
        "measured": measured,
        "measured_variance": own.astype(np.float32) if own_variance else None,
        "out_probability": np.full(shape, np.nan, np.float32),
        "noise": 0.25,
        "noise_floor": 0.2,
        "like": 32.0,
        "chroma": 3.0,
        "repeat": 0.1,
        "plate": (
            plate,
            rng.integers(0, 31, shape, dtype=np.uint8),
            np.array([2.0, 100.0, 80.0, 100.0]) * rng.uniform(0, 200),
        ),
    }


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.sampled_from([1, 2, 7, 31, 32, 64, 160, 256, 257]),
    st.booleans(),
)
def test_the_background_is_asked_and_learns_as_in_the_reference(
    seed: int, rows: int, cols: int, own_variance: bool
) -> None:
    results = []
    for kernel in kernels:
        arguments = _arguments(np.random.default_rng(seed), (rows, cols), own_variance)
        untouched = arguments["measured"].copy()
        kernel.update(*arguments.values())
        assert np.array_equal(arguments["measured"], untouched)
        results.append(arguments)
    ours, reference = results
    for name in ("out_probability", "variance", *(["measured_variance"] if own_variance else [])):
        assert np.abs(ours[name] - reference[name]).max() < 5e-5, name
    for a, b in zip(
        (*ours["plate"][0], ours["plate"][1]), (*reference["plate"][0], reference["plate"][1]), strict=True
    ):
        assert np.array_equal(a, b)
    assert np.allclose(ours["plate"][2], reference["plate"][2], rtol=1e-4)


@pytest.mark.parametrize("wrong", ["plate", "seen", "sums"])
def test_a_background_that_does_not_fit_is_refused(wrong: str) -> None:
    arguments = _arguments(np.random.default_rng(0), (16, 24), True)
    native.update(*arguments.values())
    planes, seen, sums = arguments["plate"]
    bad = {
        "plate": ((planes[0], planes[1], planes[2][:-1]), seen, sums),
        "seen": (planes, seen[:-1], sums),
        "sums": (planes, seen, sums[:-1]),
    }
    with pytest.raises(ValueError, match="expected shape"):
        native.update(*{**arguments, "plate": bad[wrong]}.values())


@pytest.mark.parametrize("plate", [(), 3, (1, 2), "abc"])
def test_what_is_no_background_is_refused(plate: object) -> None:
    arguments = _arguments(np.random.default_rng(0), (16, 24), True)
    with pytest.raises(TypeError):
        native.update(*{**arguments, "plate": plate}.values())
