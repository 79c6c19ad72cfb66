"""(previous, current) luma grid -> BlockFlow: coarse block matching, with a confidence for each vector.

The search is in _flow.c (flow_reference.py where no compiler was): three levels, 8x8 windows, sums of absolute
differences, one Gauss-Newton step to 1/16 pixel (Lucas and Kanade, IJCAI 1981), then for 2-pixel blocks a choice
between the four vectors around. Candidates from the neighbours and from the frame before stand in for a wide
search (de Haan et al., "True-motion estimation with 3-D recursive search block matching", IEEE TCSVT 1993).
What each setting costs and gives is in docs/flow.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Literal

import cv2
import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from edge_seg import kernels
from edge_seg.types import F32, U8, BlockFlow

_native = kernels.load("flow") or import_module("edge_seg.flow_reference")

Q = 16
"""Vectors are whole multiples of 1/16 pixel."""
EXPOSURE_STEP = 4
"""Code values by which the mean must have changed before a change of the whole picture's exposure is considered."""
QUANTILES = (10, 30, 50, 70, 90)


@dataclass(frozen=True)
class FlowSettings:
    """What the flow spends, and what it gives for it: the table is in docs/flow.md."""

    block_px: Literal[2, 4, 8] = 4
    """A vector for every so many pixels of the luma grid."""
    levels: Annotated[int, Ge(1), Le(4)] = 3
    """Pictures of the pyramid, each half the size of the one before."""
    search_px: Annotated[int, Ge(0), Le(16)] = 5
    """Full search around zero on the smallest picture: with 3 levels, 4 times as many pixels of the grid."""
    penalty: Annotated[int, Ge(0), Le(4096)] = 8
    """What a vector must match better than standing still to be taken: summed differences of 64 pixels."""


DEFAULTS = FlowSettings()


def estimate(
    previous: U8,
    current: U8,
    settings: FlowSettings = DEFAULTS,
    hint: BlockFlow | None = None,
    active: U8 | None = None,
) -> BlockFlow:
    """Where each block of `current` stood in `previous`.

    Both: (h, w), uint8 luma, 1 to 2048 pixels a side, rows contiguous. A pure function: the pyramids are made
    anew in each call, which costs less than a tenth of it.

    `hint` is the flow of the frame before (any block size; ignored for another grid): its vectors are tried.
    `active`: (block rows, block cols), uint8, contiguous: where it is 0, a vector is not refined beyond the
    coarser level; residual and confidence are still those of the vector given.

    After a jump of the exposure the vectors and the residual are those of the compensated pictures.
    """
    if previous.ndim != 2 or previous.shape != current.shape:
        raise ValueError(f"two grids of one shape (h, w) are needed, got {previous.shape}, {current.shape}")
    height, width = current.shape
    block = settings.block_px
    shape = (-(-height // block), -(-width // block))
    if active is not None and (active.shape != shape or not active.flags.c_contiguous):
        raise ValueError(f"active: a contiguous array of shape {shape} is needed, got {active.shape}")
    vectors = np.empty((*shape, 2), np.float32)
    residual = np.empty(shape, np.float32)
    confidence = np.empty(shape, np.float32)
    _native.estimate(
        _same_exposure(previous, current),
        current,
        _start(hint, (height, width), block, shape),
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


def _start(
    hint: BlockFlow | None, grid_shape: tuple[int, int], block_px: int, shape: tuple[int, int]
) -> NDArray[np.int16] | None:
    """The vectors of `hint` on blocks of `block_px`, in 1/Q pixel. Shape: (rows, cols, 2)."""
    if hint is None or hint.grid_shape != grid_shape:
        return None
    vectors = hint.vectors
    if hint.block_px != block_px:
        rows, cols = ((np.arange(n) * block_px + block_px // 2) // hint.block_px for n in shape)
        rows, cols = np.minimum(rows, vectors.shape[0] - 1), np.minimum(cols, vectors.shape[1] - 1)
        vectors = vectors[rows[:, None], cols]
    return (vectors * np.float32(Q)).astype(np.int16)


def _same_exposure(previous: U8, current: U8) -> U8:
    """`previous` as it would look under the exposure of `current`; itself where that has not changed.

    It has if all of the distribution went one way, and if the pictures fit better with gain and offset matched
    (from quantiles, which do not care where things stand) than without: someone bright who walks in changes
    the mean, but not the typical pixel.
    """
    if abs(cv2.mean(current)[0] - cv2.mean(previous)[0]) < EXPOSURE_STEP:
        return previous
    before, after = (picture[::2, ::2].astype(np.int16) for picture in (previous, current))
    low, _, middle, _, high = was = np.percentile(before, QUANTILES)
    low_after, _, middle_after, _, high_after = now = np.percentile(after, QUANTILES)
    if not ((now > was).all() or (now < was).all()):
        return previous
    gain = float(np.clip((high_after - low_after) / max(high - low, 1.0), 0.5, 2.0))
    table = np.clip(np.rint((np.arange(256) - middle) * gain + middle_after), 0, 255).astype(np.uint8)
    if np.median(np.abs(table[before].astype(np.int16) - after)) >= np.median(np.abs(after - before)):
        return previous
    return np.asarray(cv2.LUT(previous, table), np.uint8)


def sample(flow: BlockFlow, x: F32, y: F32) -> F32:
    """The vectors of the blocks in which points of the luma grid lie. x, y: any one shape. Shape: (..., 2)."""
    rows = np.clip(np.floor(y / flow.block_px).astype(np.intp), 0, flow.vectors.shape[0] - 1)
    cols = np.clip(np.floor(x / flow.block_px).astype(np.intp), 0, flow.vectors.shape[1] - 1)
    picked: F32 = flow.vectors[rows, cols]
    return picked


def _landing(flow: BlockFlow) -> tuple[F32, F32]:
    """Where the centre of each block stood in the frame before, (x, y). Shapes: (block rows, block cols)."""
    rows, cols = flow.residual.shape
    centre = np.float32(flow.block_px / 2)
    y = np.arange(rows, dtype=np.float32)[:, None] * np.float32(flow.block_px) + centre
    x = np.arange(cols, dtype=np.float32) * np.float32(flow.block_px) + centre
    return x + flow.vectors[..., 0], y + flow.vectors[..., 1]


def compose(newer: BlockFlow, older: BlockFlow) -> BlockFlow:
    """The flow across two frames: `newer` leads from c to b, `older` from b to a, the result from c to a.

    Blocks take the vector of the block they land in, never a mean of two motions. The residuals add up, the
    confidences multiply. To carry a mask over several frames, move it by one flow after the other instead:
    that is better by .01 IoU at 4 to 8 frames (docs/flow.md).
    """
    if newer.grid_shape != older.grid_shape or newer.block_px != older.block_px:
        raise ValueError(
            f"flows of one grid are needed, got {newer.grid_shape} in blocks of {newer.block_px} px and "
            f"{older.grid_shape} in blocks of {older.block_px} px"
        )
    x, y = _landing(newer)
    rows = np.clip(np.floor(y / older.block_px).astype(np.intp), 0, older.residual.shape[0] - 1)
    cols = np.clip(np.floor(x / older.block_px).astype(np.intp), 0, older.residual.shape[1] - 1)
    return BlockFlow(
        newer.vectors + older.vectors[rows, cols],
        newer.residual + older.residual[rows, cols],
        newer.confidence * older.confidence[rows, cols],
        newer.block_px,
        newer.grid_shape,
    )


def round_trip_px(backward: BlockFlow, forward: BlockFlow) -> F32:
    """How far each block ends from where it began, there and back. Shape: that of `backward`, pixels.

    `forward` is the flow of the same two frames the other way round, in blocks of any size (8 px will do:
    `estimate(current, previous, FlowSettings(block_px=8))`). Large where something is hidden or uncovered.
    """
    x, y = _landing(backward)
    return np.asarray(np.linalg.norm(backward.vectors + sample(forward, x, y), axis=-1), np.float32)


def doubted(flow: BlockFlow, round_trip: F32, tolerance_px: float = 1.0) -> BlockFlow:
    """The flow with less confidence where the way there and back does not close. `round_trip`: pixels."""
    closes = 1 / (1 + (round_trip / np.float32(tolerance_px)) ** 2)
    confidence = np.asarray(flow.confidence * closes, np.float32)
    return BlockFlow(flow.vectors, flow.residual, confidence, flow.block_px, flow.grid_shape)
