"""A frame number and a time stamp that can be read in the picture, after encoding and decoding.

A block code, printed on the shirt of the synthetic person: 18 x 9 square cells, black or white. The cells
on its border are a fixed pseudo-random pattern by which it is found, the 16 x 7 inside carry 32 bits of
frame number, 64 bits of capture time and a CRC-16 of both. A cell is 1/45 of the picture's shorter side,
8 pixels at 640x360: as large as the transform blocks of H.264, so that it survives strong compression.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.types import U8

COLUMNS, ROWS = 18, 9
BLACK, WHITE = 40, 215
"""Luma code values. Short of the full range, which would stand out of a shirt like nothing real."""

_PAYLOAD = struct.Struct(">IQ")
_CANDIDATES = 3
_COARSE = 4  # pixels per cell in the picture that is searched
_BORDER_BITS = 0x0F89268D695CE
"""In reading order. Half of the 50 are white, and of 3000 random ones it is least like itself when shifted
(5 of 50 in the worst place)."""
_MIN_SCORE = 0.5  # of the correlation with the border: a code scores above 0.9, other pictures up to 0.43


@dataclass(frozen=True, slots=True)
class Code:
    """What the picture says about itself."""

    seq: int
    """32 bits: wraps after 4.5 years at 30 fps."""
    captured_ns: int
    """On the monotonic clock of the machine that drew it."""


def cell_px(width: int, height: int) -> int:
    """Side of a cell in a picture of this size."""
    return max(1, min(width, height) // 45)


def cells(code: Code) -> U8:
    """The code's cells. Shape: (ROWS, COLUMNS), uint8, 0 black or 1 white."""
    payload = _PAYLOAD.pack(code.seq & 0xFFFFFFFF, code.captured_ns & 0xFFFFFFFFFFFFFFFF)
    checked = payload + struct.pack(">H", binascii.crc_hqx(payload, 0xFFFF))
    grid = _border().copy()
    grid[1:-1, 1:-1] = np.unpackbits(np.frombuffer(checked, np.uint8)).reshape(ROWS - 2, COLUMNS - 2)
    return grid


def paint(luma: U8, code: Code, cell: int) -> None:
    """Draws the code into `luma`, which is exactly as large as the code: (ROWS * cell, COLUMNS * cell)."""
    values = np.where(cells(code) > 0, np.uint8(WHITE), np.uint8(BLACK))
    cv2.resize(values, (COLUMNS * cell, ROWS * cell), dst=luma, interpolation=cv2.INTER_NEAREST)


def read_code(luma: U8) -> Code | None:
    """The code in a picture, wherever it stands. `luma` has shape (height, width), uint8.

    The picture must have the size that it was drawn at. None if there is no code, or it cannot be read.
    """
    height, width = luma.shape
    cell = cell_px(width, height)
    template, weight = _template()
    scale = _COARSE / cell
    small = cv2.resize(luma, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    if small.shape[0] < template.shape[0] or small.shape[1] < template.shape[1]:
        return None
    score = np.nan_to_num(
        cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED, mask=weight), nan=0, posinf=0, neginf=0
    )
    for _ in range(_CANDIDATES):
        _, best, _, (x, y) = cv2.minMaxLoc(score)
        if best < _MIN_SCORE:
            return None
        found = _decode_near(luma, x / scale, y / scale, cell)
        if found is not None:
            return found
        score[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = 0
    return None


@cache
def _edge() -> NDArray[np.bool_]:
    edge = np.ones((ROWS, COLUMNS), bool)
    edge[1:-1, 1:-1] = False
    return edge


@cache
def _border() -> U8:
    """Cells of the code with nothing inside."""
    edge = _edge()
    grid = np.zeros((ROWS, COLUMNS), np.uint8)
    grid[edge] = [int(bit) for bit in f"{_BORDER_BITS:0{int(edge.sum())}b}"]
    return grid


@cache
def _template() -> tuple[U8, U8]:
    """The border as it is searched for, and a mask that leaves the inside out."""
    size = (COLUMNS * _COARSE, ROWS * _COARSE)
    scaled = cv2.resize(_border() * np.uint8(255), size, interpolation=cv2.INTER_NEAREST)
    image = np.asarray(scaled, np.uint8)
    weight = np.ones_like(image)
    weight[_COARSE:-_COARSE, _COARSE:-_COARSE] = 0
    return image, weight


def _decode_near(luma: U8, left: float, top: float, cell: int) -> Code | None:
    """Tries the positions around a hit of the search, nearest first: it is known to a quarter of a cell."""
    step = max(1, cell // _COARSE)
    shifts = sorted(((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)), key=lambda s: abs(s[0]) + abs(s[1]))
    for dx, dy in shifts:
        x, y = round(left) + dx * step, round(top) + dy * step
        if x < 0 or y < 0:
            continue
        patch = luma[y : y + ROWS * cell, x : x + COLUMNS * cell]
        if patch.shape == (ROWS * cell, COLUMNS * cell):
            code = _decode(patch, cell)
            if code is not None:
                return code
    return None


def _decode(patch: U8, cell: int) -> Code | None:
    margin = cell // 4  # the rim of a cell is smeared by compression and by half-pixel positions
    blocks = patch.reshape(ROWS, cell, COLUMNS, cell)[:, margin : cell - margin, :, margin : cell - margin]
    level = blocks.mean(axis=(1, 3))
    border, edge = _border(), _edge()
    threshold = (level[edge & (border > 0)].mean() + level[edge & (border == 0)].mean()) / 2
    raw = np.packbits(level[1:-1, 1:-1] > threshold).tobytes()
    payload, checksum = raw[: _PAYLOAD.size], raw[_PAYLOAD.size :]
    if struct.pack(">H", binascii.crc_hqx(payload, 0xFFFF)) != checksum:
        return None
    seq, captured_ns = _PAYLOAD.unpack(payload)
    return Code(seq, captured_ns)
