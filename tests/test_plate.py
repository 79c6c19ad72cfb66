"""The background's kernel computes what its NumPy reference says, and does not trust its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg import plate_reference
from tests.drawn_masks import smooth_mask

native: Any = pytest.importorskip("edge_seg._plate", reason="the C extension is not built")
kernels: list[Any] = [native, plate_reference]


def _evidence_arguments(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    plate = tuple(rng.integers(60, 180, shape, dtype=np.uint8) for _ in range(3))
    differs = rng.random(shape) < 0.3
    picture = tuple(
        np.clip(plane + np.where(differs, rng.integers(-60, 61, shape), rng.integers(-4, 5, shape)), 0, 255)
        for plane in plate
    )
    return {
        "picture": tuple(plane.astype(np.uint8) for plane in picture),
        "plate": plate,
        "seen": rng.integers(0, 31, shape, dtype=np.uint8),
        "probability": smooth_mask(rng, shape),
        "measured": smooth_mask(rng, shape),
        "weighed": np.empty(shape, np.float32),
        "variance": rng.uniform(0.05, 0.3, shape).astype(np.float32),
        "sums": np.array([2.0, 100.0, 80.0, 100.0]) * rng.uniform(0, 200),
        "chroma": 3.0,
        "noise": 0.25,
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 160), st.booleans())
def test_evidence_equals_its_reference(seed: int, rows: int, cols: int, own_variance: bool) -> None:
    results = []
    for kernel in kernels:
        arguments = _evidence_arguments(np.random.default_rng(seed), (rows, cols))
        kernel.evidence(*(arguments if own_variance else {**arguments, "variance": None}).values())
        results.append(arguments)
    ours, reference = results
    for name in ("weighed", "variance"):
        assert np.abs(ours[name] - reference[name]).max() < 2e-5, name
    for a, b in zip((*ours["plate"], ours["seen"]), (*reference["plate"], reference["seen"]), strict=True):
        assert np.array_equal(a, b)
    assert np.allclose(ours["sums"], reference["sums"], rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["picture", "plate", "seen", "probability", "measured", "weighed", "variance", "sums"]
)
def test_evidence_refuses_what_does_not_fit(name: str) -> None:
    arguments = _evidence_arguments(np.random.default_rng(0), (16, 24))
    native.evidence(*arguments.values())
    value = arguments[name]
    short = (value[0], value[1], value[2][:-1]) if isinstance(value, tuple) else value[:-1]
    with pytest.raises(ValueError, match="expected shape"):
        native.evidence(*{**arguments, name: short}.values())
