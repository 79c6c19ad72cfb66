"""Puts the person of one picture on another: one pass over I420, alpha upsampled and edge-fitted on the way.

The native kernel (_blend.c) and the NumPy reference here are the same fixed-point arithmetic and give the
same bytes; the reference is used where the extension was not built.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_seg.types import F32, I420, U8, Alpha

I32 = NDArray[np.int32]
Planes = tuple[U8, U8, U8]
Kernel = Callable[[Planes, Planes, Planes, F32, F32], None]

# Fixed point of the kernel; see _blend.c.
_ALPHA_ONE = np.float32(1027)
_GAIN_ONE = np.float32(2062)
_LIMIT = np.float32(16383)


def composite(front: I420, alpha: Alpha | None, background: I420, out: I420) -> None:
    """Writes background + alpha * (front - background) into `out`.

    All three pictures have the same size (any size from 1x1, odd ones too) and the same matrix. `out` may be
    `front` or `background` itself; any other overlap is refused. Without an alpha only the background is
    shown: nothing of the room gets out before there is a mask.
    """
    for name, other in (("background", background), ("out", out)):
        if (other.width, other.height) != (front.width, front.height):
            raise ValueError(
                f"{name}: expected {front.width}x{front.height}, got {other.width}x{other.height}"
            )
        if other.matrix != front.matrix:
            raise ValueError(f"{name}: expected {front.matrix.value}, got {other.matrix.value}")
    if alpha is None:
        for source, target in zip(background.planes, out.planes, strict=True):
            np.copyto(target, source)
        return
    kernel(front.planes, background.planes, out.planes, alpha.gain, alpha.offset)


def alpha_256(gain: F32, offset: F32, luma: U8) -> I32:
    """Alpha at full resolution as the kernel computes it. Shape: that of `luma`, int32, 0 to 256."""
    height, width = luma.shape
    gain_q, offset_q = _fixed(gain, _GAIN_ONE), _fixed(offset, _ALPHA_ONE)
    fitted = _upsample(offset_q, height, width)
    fitted += (_upsample(gain_q, height, width) * (luma.astype(np.int32) << 7)) >> 16
    alpha: I32 = np.clip((fitted + 1) >> 2, 0, 256)
    return alpha


def composite_reference(front: Planes, back: Planes, out: Planes, gain: F32, offset: F32) -> None:
    """What _blend.composite computes, in NumPy, and several times slower."""
    alpha = alpha_256(gain, offset, front[0])
    height, width = alpha.shape
    even = np.pad(alpha, ((0, height % 2), (0, width % 2)), mode="edge")
    chroma = (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2] + 2) >> 2
    for a, f, b, o in zip((alpha, chroma, chroma), front, back, out, strict=True):
        if f.shape != a.shape or b.shape != a.shape or o.shape != a.shape:
            raise ValueError(f"expected planes of {a.shape}, got {f.shape}, {b.shape} and {o.shape}")
        below = b.astype(np.int32)
        o[:] = ((below << 8) + a * (f.astype(np.int32) - below) + 128) >> 8


def _fixed(values: F32, one: np.float32) -> I32:
    scaled = np.clip(np.nan_to_num(values * one, nan=0.0), -_LIMIT, _LIMIT)
    fixed: I32 = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int32)
    return fixed


def _upsample(grid: I32, height: int, width: int) -> I32:
    """Bilinear, pixel centres aligned; rounds down, rows before columns, as the kernel does."""
    y, y_next, y_weight = _locate(height, grid.shape[0])
    x, x_next, x_weight = _locate(width, grid.shape[1])
    rows = grid[y] + (((grid[y_next] - grid[y]) * y_weight[:, None]) >> 15)
    upsampled: I32 = rows[:, x] + (((rows[:, x_next] - rows[:, x]) * x_weight) >> 15)
    return upsampled


def _locate(size: int, nodes: int) -> tuple[NDArray[np.int64], NDArray[np.int64], I32]:
    numerator = (2 * np.arange(size, dtype=np.int64) + 1) * nodes - size
    index = np.clip(numerator // (2 * size), 0, nodes - 1)
    weight = ((numerator - index * 2 * size) << 15) // (2 * size)
    inside = (numerator > 0) & (index < nodes - 1)
    return index, np.minimum(index + 1, nodes - 1), np.where(inside, weight, 0).astype(np.int32)


def _fastest() -> Kernel:
    try:
        from edge_seg import _blend
    except ImportError:  # no compiler where the package was installed
        return composite_reference
    return _blend.composite


kernel = _fastest()
