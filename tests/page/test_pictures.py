import cv2
import numpy as np
import pytest

from edge_seg.colour import bgr_to_i420
from edge_seg.page import pictures
from edge_seg.tap import Tapped
from edge_seg.types import I420, U8, Mask, Matrix

BLUE = (200, 60, 30)


def tapped(width: int = 1280, height: int = 720, matrix: Matrix = Matrix.BT709) -> Tapped:
    """A blue output, a mask on its left half, and a bright room."""
    output = bgr_to_i420(np.full((height, width, 3), BLUE, np.uint8), matrix)
    room = I420.filled(width, height, (220, 128, 128), matrix)
    probability = np.zeros((36, 64), np.float32)
    probability[:, :32] = 1
    return Tapped(output, Mask(probability, 1, 1, 0), room)


def decoded(jpeg: bytes) -> U8:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize("matrix", list(Matrix))
def test_the_output_is_small_and_has_its_colours(matrix: Matrix) -> None:
    picture = decoded(pictures.jpeg(tapped(matrix=matrix), "output"))
    assert picture.shape == (360, 640, 3)
    assert np.abs(picture.astype(int) - BLUE).max() < 8


def test_small_and_upright_pictures_keep_their_shape() -> None:
    assert decoded(pictures.jpeg(tapped(90, 160), "output")).shape == (160, 90, 3)
    assert decoded(pictures.jpeg(tapped(720, 1280), "output")).shape == (640, 360, 3)


def test_the_mask_tints_the_person_and_nothing_else() -> None:
    plain = decoded(pictures.jpeg(tapped(), "output")).astype(int)
    masked = decoded(pictures.jpeg(tapped(), "mask")).astype(int)
    changed = np.abs(masked - plain).max(axis=2) > 10
    assert changed[:, :300].mean() > 0.99
    assert changed[:, 340:].mean() < 0.01


def test_only_the_view_of_the_camera_shows_the_room() -> None:
    side_by_side = decoded(pictures.jpeg(tapped(), "camera"))
    assert side_by_side.shape == (270, 960, 3)
    assert side_by_side[:, :470].min() > 200
    whole = tapped()
    without = Tapped(whole.output, whole.mask, None)
    assert decoded(pictures.jpeg(without, "camera")).shape == (270, 480, 3)
    for view in ("output", "mask"):
        assert decoded(pictures.jpeg(whole, view)).mean() < 150  # type: ignore[arg-type]


def test_a_frame_without_a_mask_is_shown_as_it_is() -> None:
    whole = tapped()
    without = Tapped(whole.output, None, None)
    assert pictures.jpeg(without, "mask") == pictures.jpeg(whole, "output")
