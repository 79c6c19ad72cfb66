from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg.sources.timecode import COLUMNS, ROWS, Code, cell_px, paint, read_code

WIDTH, HEIGHT = 320, 240


def picture_with(code: Code, left: int, top: int, seed: int = 0) -> np.ndarray:
    """Smooth noise with a code on it."""
    luma = np.random.default_rng(seed).integers(30, 200, (HEIGHT, WIDTH)).astype(np.uint8)
    cell = cell_px(WIDTH, HEIGHT)
    paint(luma[top : top + ROWS * cell, left : left + COLUMNS * cell], code, cell)
    return luma


@settings(max_examples=30, deadline=None)
@given(
    seq=st.integers(0, 2**32 - 1),
    captured_ns=st.integers(0, 2**64 - 1),
    left=st.integers(0, WIDTH - COLUMNS * 5),
    top=st.integers(0, HEIGHT - ROWS * 5),
)
def test_reads_back_what_was_printed_wherever_it_stands(
    seq: int, captured_ns: int, left: int, top: int
) -> None:
    code = Code(seq, captured_ns)
    assert read_code(picture_with(code, left, top)) == code


def test_a_damaged_code_is_refused_not_misread() -> None:
    cell = cell_px(WIDTH, HEIGHT)
    luma = picture_with(Code(1234, 5678), 50, 60)
    luma[60 + 4 * cell : 60 + 5 * cell, 50 + 5 * cell : 50 + 6 * cell] ^= 0xFF
    assert read_code(luma) is None


@pytest.mark.parametrize("shape", [(240, 320), (720, 1280), (17, 23), (1, 1)])
def test_a_picture_without_a_code_has_none(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    assert read_code(noise) is None
    assert read_code(np.full(shape, 128, np.uint8)) is None
