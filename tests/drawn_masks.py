"""Masks for tests of kernels."""

from __future__ import annotations

import numpy as np

from edge_seg.types import F32


def smooth_mask(rng: np.random.Generator, shape: tuple[int, int]) -> F32:
    """Large sure areas, soft and hard edges: all the cases of a tile."""
    rows, cols = np.indices(shape)
    wave = np.sin(rows / rng.uniform(3, 20) + rng.uniform(0, 6)) + np.cos(cols / rng.uniform(3, 20))
    return np.clip(wave * rng.uniform(0.5, 8) + 0.5, 0, 1).astype(np.float32)
