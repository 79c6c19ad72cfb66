"""(previous, current) luma grid -> BlockFlow: coarse block matching, with a confidence for each vector."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from edge_seg.types import U8, BlockFlow

_native: Any
try:
    _native = import_module("edge_seg._flow")
except ImportError:  # installed without a compiler
    _native = import_module("edge_seg.flow_reference")

Q = 16
"""Vectors are whole multiples of 1/16 pixel."""


@dataclass(frozen=True)
class FlowSettings:
    """What the flow spends, and what it gives for it: the table is in docs/flow.md."""

    block_px: Literal[2, 4, 8] = 4
    levels: Annotated[int, Ge(1), Le(4)] = 3
    search_px: Annotated[int, Ge(0), Le(16)] = 5
    penalty: Annotated[int, Ge(0), Le(4096)] = 8


DEFAULTS = FlowSettings()


def estimate(
    previous: U8,
    current: U8,
    settings: FlowSettings = DEFAULTS,
    hint: BlockFlow | None = None,
    active: U8 | None = None,
) -> BlockFlow:
    """Where each block of `current` stood in `previous`.

    Both: (h, w), uint8 luma, 1 to 2048 pixels a side, rows contiguous. `hint` is the flow of the frame before
    (used where its grid is the same).
    """
    if previous.ndim != 2 or previous.shape != current.shape:
        raise ValueError(f"two grids of one shape (h, w) are needed, got {previous.shape}, {current.shape}")
    height, width = current.shape
    block = settings.block_px
    shape = (-(-height // block), -(-width // block))
    vectors = np.empty((*shape, 2), np.float32)
    residual = np.empty(shape, np.float32)
    confidence = np.empty(shape, np.float32)
    start: NDArray[np.int16] | None = None
    if hint is not None and hint.vectors.shape == vectors.shape:
        start = np.rint(hint.vectors * Q).astype(np.int16)
    if active is not None and (active.shape != shape or not active.flags.c_contiguous):
        raise ValueError(f"active: a contiguous array of shape {shape} is needed, got {active.shape}")
    _native.estimate(
        previous,
        current,
        start,
        active,
        vectors,
        residual,
        confidence,
        block,
        settings.levels,
        settings.search_px,
        settings.penalty,
    )
    return BlockFlow(vectors, residual, confidence, block, (height, width))
