"""Puts the person of one picture on another: one pass over I420, alpha upsampled and edge-fitted on the way.

The native kernel (_blend.c) and the NumPy reference here are the same fixed-point arithmetic and give the
same bytes; the reference is used where the extension was not built.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_seg import kernels
from edge_seg.types import I16, I420, U8, Alpha, is_fitted

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Planes = tuple[U8, U8, U8]
Kernel = Callable[[Planes, Planes, Planes, I16, I16 | None, U8 | None], None]

_COLOUR_ONE = 16
"""Of colours, while they are interpolated; see _widen.h."""


def composite(front: I420, alpha: Alpha | None, background: I420, out: I420) -> None:
    """Writes background + alpha * (front - background) into `out`.

    All three pictures have the same size (any size from 1x1, odd ones too) and the same matrix. `out` may be
    `front` or `background` itself; any other overlap is refused. Without an alpha only the background is
    shown: nothing of the room gets out before there is a mask.
    """
    for name, other in (("background", background), ("out", out)):
        if other.y.shape != front.y.shape:
            raise ValueError(
                f"{name}: expected {front.width}x{front.height}, got {other.width}x{other.height}"
            )
        if other.matrix != front.matrix:
            raise ValueError(f"{name}: expected {front.matrix.value}, got {other.matrix.value}")
    if alpha is None:
        for source, target in zip(background.planes, out.planes, strict=True):
            np.copyto(target, source)
        return
    kernel(front.planes, background.planes, out.planes, alpha.offset, alpha.gain, alpha.foreground)


def alpha_256(offset: I16, gain: I16 | None, planes: Planes) -> I32:
    """Alpha at full resolution as the kernel computes it. Shape: (height, width), int32, 0 to 256."""
    height, width = planes[0].shape
    rows, columns = offset.shape
    across = _locate(2 * np.arange(width) + 1, width, columns)
    down = _locate(2 * np.arange(height) + 1, height, rows)
    level = _along_rows(offset.astype(np.int32), across)
    if gain is None:
        value = (_between(level[down[0]], level[down[1]], down[2][:, None]) + 1) >> 2
    else:
        # In halves, so that no sum leaves 16 bits. Chroma is applied first: two rows of luma have it in common.
        y, u, v = (_at_each_pixel((plane.astype(np.int32) - 128) << 7, (height, width)) for plane in planes)
        counts = is_fitted(offset)
        gain_y, gain_u, gain_v = (_along_rows(np.where(counts, g, 0).astype(np.int32), across) for g in gain)
        above, below = (
            (level[row] >> 1) + (gain_u[row] * u >> 16) + (gain_v[row] * v >> 16) for row in down[:2]
        )
        steep = _between(gain_y[down[0]], gain_y[down[1]], down[2][:, None])
        value = (_between(above, below, down[2][:, None]) + (steep * y >> 16) + 1) >> 1
    alpha: I32 = np.clip(value, 0, 256)
    return alpha


def _at_each_pixel(plane: I32, shape: tuple[int, ...]) -> I32:
    """A plane at luma's resolution: chroma's samples stand for two pixels of two rows."""
    if plane.shape == shape:
        return plane
    return plane.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def composite_reference(
    front: Planes, back: Planes, out: Planes, offset: I16, gain: I16 | None, foreground: U8 | None
) -> None:
    """What _blend.composite computes, in NumPy, and many times slower."""
    alpha = alpha_256(offset, gain, front)
    height, width = alpha.shape
    even = np.pad(alpha, ((0, height % 2), (0, width % 2)), mode="edge")
    chroma = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2] + 2) >> 2
    for index, a in enumerate((alpha, chroma, chroma)):
        f, b, o = front[index], back[index], out[index]
        if f.shape != a.shape or b.shape != a.shape or o.shape != a.shape:
            raise ValueError(f"expected planes of {a.shape}, got {f.shape}, {b.shape} and {o.shape}")
        person = f.astype(np.int32)
        if foreground is not None:
            grid = foreground[index].astype(np.int32) * _COLOUR_ONE
            near = _at_chroma(grid, alpha.shape)
            if index == 0:  # luma takes the colour of the chroma sample that it lies at
                near = _at_each_pixel(near, alpha.shape)
            person = _mix(a, person, (near + _COLOUR_ONE // 2) // _COLOUR_ONE)
        o[:] = _mix(a, person, b.astype(np.int32))


def _mix(alpha: I32, above: I32, below: I32) -> I32:
    return ((below << 8) + alpha * (above - below) + 128) >> 8


def _at_chroma(grid: I32, shape: tuple[int, ...]) -> I32:
    """At the chroma samples, each between two luma samples where there are two."""
    height, width = shape
    row, next_row, weight = _locate(_chroma_positions(height), height, grid.shape[0])
    wide = _along_rows(grid, _locate(_chroma_positions(width), width, grid.shape[1]))
    return _between(wide[row], wide[next_row], weight[:, None])


def _chroma_positions(size: int) -> I64:
    """In half pixels of luma: between two of them, or on the last one where there is no second."""
    positions: I64 = np.minimum(4 * np.arange((size + 1) // 2) + 2, 2 * size - 1)
    return positions


def _along_rows(grid: I32, across: tuple[I64, I64, I32]) -> I32:
    first, second, weight = across
    return _between(grid[:, first], grid[:, second], weight)


def _between(first: I32, second: I32, weight: I32) -> I32:
    """Bilinear; rounds down, as the kernel does."""
    between: I32 = first + (((second - first) * weight) >> 16)
    return between


def _locate(positions: I64, size: int, nodes: int) -> tuple[I64, I64, I32]:
    """Where samples at positions in half pixels lie: the node before, the one behind, and the way between them in
    1 / 65536."""
    numerator = positions.astype(np.int64) * nodes - size
    index = np.clip(numerator // (2 * size), 0, nodes - 1)
    weight = ((numerator - index * 2 * size) << 16) // (2 * size)
    inside = (numerator > 0) & (index < nodes - 1)
    return index, np.minimum(index + 1, nodes - 1), np.where(inside, weight, 0).astype(np.int32)


_native = kernels.load("blend")


def composite_native(
    front: Planes, back: Planes, out: Planes, offset: I16, gain: I16 | None, foreground: U8 | None
) -> None:
    """The fused loop in C. Releases the GIL."""
    layout = _layout(*front[0].shape, *offset.shape)
    _native.composite(front, back, out, offset, gain, foreground, layout)


@lru_cache(maxsize=4)
def _layout(height: int, width: int, rows: int, cols: int) -> Any:
    """Where the pixels of a picture lie on a grid, for the kernel: computed once for a stream."""
    return _native.layout(height, width, rows, cols)


kernel: Kernel = composite_native if _native else composite_reference
