"""What travels between the stages. Arrays say their shape, dtype, range and unit.

A sequence number travels with every frame, mask and alpha: blending a mask with another frame than the
one it was made for, or carried to, is a bug that a test can see.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]
F32 = NDArray[np.float32]

ALPHA_ONE = 1027
"""Alpha 1.0 in fixed point: a bit more than 1024, so that it still saturates after rounding down."""
GAIN_ONE = 1031
"""Gain 1.0 in fixed point: (GAIN_ONE * (d << 8)) >> 16 is ALPHA_ONE * d / 255."""
FIXED_LIMIT = 16383
"""Of both, so that the difference of two fits 16 bits."""

STEPS_A_PIXEL = 16
"""Of the vectors of the flow."""
RESIDUAL_SCALE = np.float32(8)
"""Code values at which a vector is half believed."""
TEXTURE_SCALE = np.float32(4)
"""Squared code values a pixel at which motion is half believed: gradients of 2 in the weaker direction."""


class Matrix(str, Enum):
    """The YCbCr matrix of a picture (ITU-R BT.601 or BT.709). The range is always limited (16 to 235)."""

    BT601 = "bt601"
    BT709 = "bt709"


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True, slots=True, eq=False)
class I420:
    """One picture in YUV 4:2:0: three planes, views into one buffer, limited range.

    The buffer is laid out as GStreamer lays out I420 (rows padded to 4 bytes, an even number of luma rows),
    so that it can be handed to an encoder as it is. Odd sizes are allowed: chroma is rounded up.
    """

    buffer: U8
    """Shape: (size,), contiguous."""
    y: U8
    """Shape: (height, width)."""
    u: U8
    """Shape: ((height + 1) // 2, (width + 1) // 2)."""
    v: U8
    """Shape: ((height + 1) // 2, (width + 1) // 2)."""
    matrix: Matrix = Matrix.BT709

    @property
    def width(self) -> int:
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        return int(self.y.shape[0])

    @property
    def planes(self) -> tuple[U8, U8, U8]:
        return self.y, self.u, self.v

    def even(self) -> I420:
        """This picture without its last column or row where their number is odd, as encoders need it.

        The planes are views; `buffer` is the whole picture's.
        """
        width, height = self.width & ~1, self.height & ~1
        if (width, height) == (self.width, self.height):
            return self
        half = slice(height // 2), slice(width // 2)
        return I420(self.buffer, self.y[:height, :width], self.u[half], self.v[half], self.matrix)

    @staticmethod
    def buffer_size(width: int, height: int) -> int:
        """Bytes of a picture of this size in GStreamer's layout."""
        rows = _round_up(height, 2)
        return rows * _round_up(width, 4) + rows * _round_up((width + 1) // 2, 4)

    @classmethod
    def wrap(cls, buffer: U8, width: int, height: int, matrix: Matrix = Matrix.BT709) -> I420:
        """A picture over `buffer` (shape: (buffer_size(width, height),), uint8), without a copy."""
        if width < 1 or height < 1:
            raise ValueError(f"a picture needs at least 1x1 pixels, got {width}x{height}")
        size = cls.buffer_size(width, height)
        if buffer.shape != (size,):
            raise ValueError(f"a {width}x{height} I420 picture needs {size} bytes, got shape {buffer.shape}")
        rows, chroma_rows, chroma_cols = _round_up(height, 2), (height + 1) // 2, (width + 1) // 2
        stride, chroma_stride = _round_up(width, 4), _round_up(chroma_cols, 4)
        luma_end = rows * stride
        chroma_end = luma_end + chroma_rows * chroma_stride
        return cls(
            buffer=buffer,
            y=buffer[:luma_end].reshape(rows, stride)[:height, :width],
            u=buffer[luma_end:chroma_end].reshape(chroma_rows, chroma_stride)[:, :chroma_cols],
            v=buffer[chroma_end:size].reshape(chroma_rows, chroma_stride)[:, :chroma_cols],
            matrix=matrix,
        )

    @classmethod
    def allocate(cls, width: int, height: int, matrix: Matrix = Matrix.BT709) -> I420:
        """A picture of undefined content."""
        return cls.wrap(np.empty(cls.buffer_size(width, height), np.uint8), width, height, matrix)

    @classmethod
    def filled(
        cls, width: int, height: int, yuv: tuple[int, int, int], matrix: Matrix = Matrix.BT709
    ) -> I420:
        """A picture of one colour, given as limited-range code values."""
        picture = cls.allocate(width, height, matrix)
        for plane, value in zip(picture.planes, yuv, strict=True):
            plane[:] = value
        return picture


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One captured picture."""

    picture: I420
    seq: int
    """Counts the frames that the source captured, also those dropped before anyone saw them."""
    captured_ns: int
    """When the source captured it, on the monotonic clock (time.monotonic_ns)."""
    truth: U8 | None = None
    """The exact mask, where the source knows it (synthetic): (height, width), 0 or 255."""
    lores: I420 | None = None
    """The same picture small, where the camera made it beside the full one (Raspberry Pi's ISP)."""


class Mask(NamedTuple):
    """Where the person is in one frame, at the model's resolution."""

    probability: F32
    """Shape: (rows, cols), float32 in [0, 1], C-contiguous. Covers the whole picture, stretched."""
    seq: int
    """The frame that this mask is for: made from it, or carried to it by flow."""
    observed_seq: int
    """The newest frame the model has looked at for this mask. Equals `seq` when the model saw this frame."""
    observed_ns: int
    """Capture time of that newest frame: the age of the mask is counted from it."""


class BlockFlow(NamedTuple):
    """Motion between two luma grids, one vector per block. It points backward: current -> previous.

    What stands at (x, y) in the current grid stood at (x + dx, y + dy) in the previous one, so a mask is
    carried forward by sampling the previous mask there.
    """

    steps: I16
    """Shape: (block rows, block cols, 2), int16, C-contiguous: (dx, dy) in 1 / STEPS_A_PIXEL of a pixel."""
    residual: F32
    """Shape: (block rows, block cols), float32 >= 0: mean absolute luma difference after motion
    compensation, in 8-bit code values."""
    texture: F32
    """Shape: (block rows, block cols), float32 >= 0: mean squared gradient along the direction in which it is the
    smaller, in squared code values. Without one, a vector may be any."""
    mean_residual: float
    """Of the whole picture."""
    block_px: int
    """Side of a block in pixels of the luma grid; the last row and column may be cut off by its edge."""
    grid_shape: tuple[int, int]
    """(rows, cols) of the luma grid."""

    @property
    def vectors(self) -> F32:
        """`steps` in pixels. Shape: (block rows, block cols, 2), float32."""
        return self.steps / np.float32(STEPS_A_PIXEL)

    @property
    def confidence(self) -> F32:
        """How far each vector is to be believed. Shape: (block rows, block cols), float32 in [0, 1]."""
        moved = np.minimum(np.abs(self.vectors).max(-1), np.float32(1))
        trust = self.texture / (self.texture + TEXTURE_SCALE)
        likely: F32 = (1 - (1 - trust) * moved) / (1 + (self.residual / RESIDUAL_SCALE) ** 2)
        return likely


class Alpha(NamedTuple):
    """How much of the person shows at each pixel of one frame, kept in the form that makes upsampling cheap.

    alpha(x) = clip(offset(x) + gain(x) . (colour(x) - 128) / 255, 0, 1), with `gain` and `offset` upsampled bilinearly
    from the coarse grid and the frame's colour (Y, U, V) at full resolution: the fast guided filter with a
    colour guide (He and Sun, "Fast Guided Filter", arXiv:1505.00996). Both are in the fixed point that the
    composite computes in: half the memory of floats, and no conversion.
    """

    offset: I16
    """Shape: (rows, cols), int16, contiguous, in units of 1 / ALPHA_ONE."""
    seq: int
    """The frame that it is for."""
    gain: I16 | None = None
    """Shape: (3, rows, cols), int16, contiguous, per Y, U and V, in units of 1 / GAIN_ONE. Nodes that are not
    `is_fitted` have none, whatever stands here: most of it is never written, or read. None: `offset`, upsampled, is
    alpha."""
    foreground: U8 | None = None
    """Shape: (3, rows, cols), uint8, contiguous: the person's colour nearby, to take the old background out of
    half-transparent pixels. None: they keep the colour they have. Used where there is a gain or a part of alpha."""


def is_fitted(offset: I16) -> NDArray[np.bool_]:
    """Of which nodes the gains count: not where the offset is exactly 0 or ALPHA_ONE. Shape: that of `offset`."""
    fitted: NDArray[np.bool_] = (offset != 0) & (offset != ALPHA_ONE)
    return fitted


def fixed(values: F32, one: int) -> I16:
    """Alpha or gains in fixed point, rounded to the nearest. NaN becomes 0: an alpha that cannot be computed shows
    the background."""
    limit = np.float32(FIXED_LIMIT)
    scaled = np.clip(np.nan_to_num(values * np.float32(one), nan=0.0), -limit, limit)
    return np.asarray(np.trunc(scaled + np.copysign(np.float32(0.5), scaled)), np.int16)
