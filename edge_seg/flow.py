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
from typing import Annotated, Literal, NamedTuple

import cv2
import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from edge_seg import kernels
from edge_seg.flow_reference import BORDER
from edge_seg.types import F32, I16, U8, BlockFlow

_native = kernels.load("flow") or import_module("edge_seg.flow_reference")

EXPOSURE_STEP = 4
"""Code values by which the mean must have changed before a change of the whole picture's exposure is considered."""
QUANTILES = (10, 30, 50, 70, 90)


@dataclass(frozen=True)
class FlowSettings:
    """What the flow spends, and what it gives for it: the table is in docs/flow.md."""

    block_px: Literal[2, 4, 8] = 4
    """A vector for every so many pixels of the luma grid."""
    levels: Annotated[int, Ge(1), Le(4)] = 2
    """Pictures of the pyramid, each half the size of the one before."""
    search_px: Annotated[int, Ge(0), Le(16)] = 8
    """Full search around zero on the smallest picture: with 2 levels, twice as many pixels of the grid."""
    penalty: Annotated[int, Ge(0), Le(4096)] = 8
    """What a vector must match better than standing still to be taken: summed differences of 64 pixels."""


DEFAULTS = FlowSettings()


class Prepared(NamedTuple):
    """A picture and its pyramid, laid out for matching: a copy, so that nothing can change it.

    Each picture is matched twice, as `current` and then as `previous`; prepared once, it costs half.
    """

    memory: bytes
    """What `_flow.c` reads."""
    shape: tuple[int, int]
    """(height, width) of the picture."""
    mean: float
    """Of the smallest level's pixels, which is that of the picture within a code value."""

    def picture(self) -> U8:
        """A copy of the picture. Shape: `shape`."""
        height, width = self.shape
        columns = width + 2 * BORDER
        finest = np.frombuffer(self.memory, np.uint8, (height + 2 * BORDER - 1) * columns * 2)
        pairs = finest.reshape(-1, columns, 2)
        return np.ascontiguousarray(pairs[BORDER : BORDER + height, BORDER : BORDER + width, 0])


def prepare(picture: U8) -> Prepared:
    """`picture`: (h, w), uint8 luma, 1 to 2048 pixels a side, rows contiguous."""
    height, width = picture.shape
    memory, mean = _native.prepare(picture)
    return Prepared(memory, (height, width), mean)


def estimate(
    previous: U8 | Prepared,
    current: U8 | Prepared,
    settings: FlowSettings = DEFAULTS,
    hint: BlockFlow | None = None,
    active: U8 | None = None,
) -> BlockFlow:
    """Where each block of `current` stood in `previous`.

    Both: (h, w), uint8 luma, 1 to 2048 pixels a side, rows contiguous; or what `prepare` made of it, which gives
    the same result. A pure function.

    `hint` is the flow of the frame before (any block size; ignored for another grid): its vectors are tried.
    `active`: (block rows, block cols), uint8, contiguous: where it is 0, a vector is not refined beyond the
    coarser level; residual and confidence are still those of the vector given.

    After a jump of the exposure the vectors and the residual are those of the compensated pictures.
    """
    if previous.shape != current.shape or len(current.shape) != 2:
        raise ValueError(f"two grids of one shape (h, w) are needed, got {previous.shape}, {current.shape}")
    before = previous if isinstance(previous, Prepared) else prepare(previous)
    now = current if isinstance(current, Prepared) else prepare(current)
    height, width = now.shape
    block = settings.block_px
    shape = (-(-height // block), -(-width // block))
    if active is not None and (active.shape != shape or not active.flags.c_contiguous):
        raise ValueError(f"active: a contiguous array of shape {shape} is needed, got {active.shape}")
    steps = np.empty((*shape, 2), np.int16)
    residual, texture = np.empty(shape, np.float32), np.empty(shape, np.float32)
    mean_residual = _native.estimate(
        _same_exposure(before, now).memory,
        now.memory,
        height,
        width,
        _start(hint, now.shape, block, shape),
        active,
        steps,
        residual,
        texture,
        block,
        settings.levels,
        settings.search_px,
        settings.penalty,
    )
    return BlockFlow(steps, residual, texture, mean_residual, block, now.shape)


def _start(
    hint: BlockFlow | None, grid_shape: tuple[int, int], block_px: int, shape: tuple[int, int]
) -> I16 | None:
    """The vectors of `hint` on blocks of `block_px`, in 1/16 pixel. Shape: (rows, cols, 2)."""
    if hint is None or hint.grid_shape != grid_shape:
        return None
    if hint.block_px == block_px:
        return hint.steps
    rows, cols = ((np.arange(n) * block_px + block_px // 2) // hint.block_px for n in shape)
    last_row, last_col = hint.residual.shape[0] - 1, hint.residual.shape[1] - 1
    nearest: I16 = hint.steps[np.minimum(rows, last_row)[:, None], np.minimum(cols, last_col)]
    return nearest


def _same_exposure(previous: Prepared, current: Prepared) -> Prepared:
    """`previous` as it would look under the exposure of `current`; itself where that has not changed.

    It has if all of the distribution went one way, and if the pictures fit better with gain and offset matched
    (from quantiles, which do not care where things stand) than without: someone bright who walks in changes
    the mean, but not the typical pixel.
    """
    if abs(current.mean - previous.mean) < EXPOSURE_STEP:
        return previous
    picture = previous.picture()
    before, after = (luma[::2, ::2].astype(np.int16) for luma in (picture, current.picture()))
    low, _, middle, _, high = was = np.percentile(before, QUANTILES)
    low_after, _, middle_after, _, high_after = now = np.percentile(after, QUANTILES)
    if not ((now > was).all() or (now < was).all()):
        return previous
    gain = float(np.clip((high_after - low_after) / max(high - low, 1.0), 0.5, 2.0))
    table = np.clip(np.rint((np.arange(256) - middle) * gain + middle_after), 0, 255).astype(np.uint8)
    if np.median(np.abs(table[before].astype(np.int16) - after)) >= np.median(np.abs(after - before)):
        return previous
    return prepare(np.asarray(cv2.LUT(picture, table), np.uint8))


def sample(flow: BlockFlow, x: F32, y: F32) -> F32:
    """The vectors of the blocks in which points of the luma grid lie. x, y: any one shape. Shape: (..., 2)."""
    picked: F32 = flow.vectors[_block_at(flow, x, y)]
    return picked


def _block_at(flow: BlockFlow, x: F32, y: F32) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The (rows, cols) of the blocks in which points lie, or of the nearest."""
    rows, cols = flow.residual.shape
    row, col = np.floor(y / flow.block_px), np.floor(x / flow.block_px)
    return np.clip(row, 0, rows - 1).astype(np.intp), np.clip(col, 0, cols - 1).astype(np.intp)


def _landing(flow: BlockFlow) -> tuple[F32, F32]:
    """Where the centre of each block stood in the frame before, (x, y). Shapes: (block rows, block cols)."""
    rows, cols = flow.residual.shape
    centre = np.float32(flow.block_px / 2)
    y = np.arange(rows, dtype=np.float32)[:, None] * np.float32(flow.block_px) + centre
    x = np.arange(cols, dtype=np.float32) * np.float32(flow.block_px) + centre
    vectors = flow.vectors
    return x + vectors[..., 0], y + vectors[..., 1]


def compose(newer: BlockFlow, older: BlockFlow) -> BlockFlow:
    """The flow across two frames: `newer` leads from c to b, `older` from b to a, the result from c to a.

    Blocks take the vector of the block they land in, never a mean of two motions. The residuals add up, the
    weaker texture counts. To carry a mask over several frames, move it by one flow after the other instead:
    that is better by .01 IoU at 4 to 8 frames (docs/flow.md).
    """
    if newer.grid_shape != older.grid_shape or newer.block_px != older.block_px:
        raise ValueError(
            f"flows of one grid are needed, got {newer.grid_shape} in blocks of {newer.block_px} px and "
            f"{older.grid_shape} in blocks of {older.block_px} px"
        )
    there = _block_at(older, *_landing(newer))
    limit = np.iinfo(np.int16).max
    steps = np.clip(newer.steps.astype(np.int32) + older.steps[there], -limit, limit).astype(np.int16)
    residual = newer.residual + older.residual[there]
    texture = np.minimum(newer.texture, older.texture[there])
    return BlockFlow(steps, residual, texture, float(residual.mean()), newer.block_px, newer.grid_shape)


def round_trip_px(backward: BlockFlow, forward: BlockFlow) -> F32:
    """How far each block ends from where it began, there and back. Shape: that of `backward`, pixels.

    `forward` is the flow of the same two frames the other way round, in blocks of any size (8 px will do:
    `estimate(current, previous, FlowSettings(block_px=8))`). Large where something is hidden or uncovered.
    """
    x, y = _landing(backward)
    return np.asarray(np.linalg.norm(backward.vectors + sample(forward, x, y), axis=-1), np.float32)


def doubted(flow: BlockFlow, round_trip: F32, tolerance_px: float = 1.0) -> F32:
    """The confidence, less where the way there and back does not close. `round_trip`: pixels. Shape: the same."""
    closes = 1 / (1 + (round_trip / np.float32(tolerance_px)) ** 2)
    return np.asarray(flow.confidence * closes, np.float32)
