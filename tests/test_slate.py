import numpy as np
import pytest

from edge_seg import slate
from edge_seg.types import I420


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (320, 180), (64, 64), (2, 2)])
def test_text_is_drawn_inside_and_nothing_of_the_old_picture_stays(width: int, height: int) -> None:
    out = I420.filled(width, height, (255, 1, 1))
    slate.draw(out, "camera lost, retrying")
    assert out.y.max() <= slate.TEXT_LUMA
    assert (out.y[[0, -1]] == slate.LUMA).all() or height < 16
    assert (out.u == 128).all()
    assert (out.v == 128).all()
    if height >= 64:
        assert np.count_nonzero(out.y != slate.LUMA) > 0.001 * out.y.size
