import numpy as np
import pytest

from edge_seg.colour import bgr_to_i420, i420_to_bgr, rgb_to_yuv
from edge_seg.types import Matrix

# 75 % colour bars, 8-bit limited range: ITU-R BT.471 and the tables of SMPTE RP 219 / EG 1.
BARS = {
    Matrix.BT601: {
        (191, 191, 191): (180, 128, 128),
        (191, 0, 0): (65, 100, 212),
        (0, 0, 191): (35, 212, 114),
    },
    Matrix.BT709: {
        (191, 191, 191): (180, 128, 128),
        (191, 0, 0): (51, 109, 212),
        (0, 0, 191): (28, 212, 120),
    },
}


@pytest.mark.parametrize("matrix", Matrix)
def test_colour_bars_have_the_published_codes(matrix: Matrix) -> None:
    for rgb, yuv in BARS[matrix].items():
        assert np.abs(rgb_to_yuv(np.array(rgb, np.float32), matrix) - yuv).max() <= 1


@pytest.mark.parametrize("matrix", Matrix)
@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (1, 1)])
def test_a_flat_colour_comes_back(matrix: Matrix, shape: tuple[int, int]) -> None:
    bgr = np.empty((*shape, 3), np.uint8)
    bgr[:] = (200, 90, 30)
    assert np.abs(i420_to_bgr(bgr_to_i420(bgr, matrix)).astype(int) - bgr).max() <= 2
