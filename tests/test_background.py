"""Backgrounds: what they show, what they refuse, and what they must never show."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.backgrounds import Background, BackgroundSettings, open_background, parse_colour
from edge_seg.composite import composite
from edge_seg.errors import ConfigError
from edge_seg.matte import MatteSettings, refine
from edge_seg.pyramid import shrink
from edge_seg.types import F32, I420, U8, Frame, Mask, Matrix

WIDTH, HEIGHT = 320, 180


def frame_of(picture: I420, seq: int = 0) -> Frame:
    return Frame(picture=picture, seq=seq, captured_ns=0)


def mask_of(probability: F32) -> Mask:
    return Mask(probability=probability, seq=0, observed_seq=0, observed_ns=0)


def room(person_luma: int = 230) -> tuple[Frame, Mask]:
    """A dark room with fine stripes, and a bright person in its middle, with the exact mask."""
    picture = I420.filled(WIDTH, HEIGHT, (40, 120, 130))
    picture.y[:, ::2] = 70
    mask = np.zeros((90, 160), np.float32)
    mask[20:, 60:100] = 1
    picture.y[40:, 120:200] = person_luma
    return frame_of(picture), mask_of(mask)


def rendered(settings: BackgroundSettings, width: int = WIDTH, height: int = HEIGHT) -> I420:
    background = open_background(settings, width, height, Matrix.BT709)
    try:
        return background.render(frame_of(I420.filled(width, height, (16, 128, 128))), None, 0)
    finally:
        background.close()


@pytest.mark.parametrize(
    ("text", "rgb"), [("#fff", (255, 255, 255)), ("#12ab9F", (18, 171, 159)), ("Green", (0, 128, 0))]
)
def test_colours_are_read_as_css_writes_them(text: str, rgb: tuple[int, int, int]) -> None:
    assert parse_colour(text) == rgb


@pytest.mark.parametrize("text", ["", "#12", "#1234567", "chartreusey", "rgb(1,2,3)"])
def test_a_colour_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"background\.colour"):
        parse_colour(text)


@pytest.mark.parametrize(
    ("matrix", "yuv"),
    # Rec. ITU-R BT.601-7 and BT.709-6: full red in limited range.
    [(Matrix.BT601, (81, 90, 240)), (Matrix.BT709, (63, 102, 240))],
)
def test_red_in_both_matrices(matrix: Matrix, yuv: tuple[int, int, int]) -> None:
    background = open_background(BackgroundSettings("colour", colour="#ff0000"), 6, 5, matrix)
    picture = background.render(frame_of(I420.allocate(6, 5, matrix)), None, 0)
    assert tuple(int(plane.min()) for plane in picture.planes) == yuv
    assert tuple(int(plane.max()) for plane in picture.planes) == yuv
    assert picture.matrix is matrix


def write(path: Path, image: U8 | np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
@pytest.mark.parametrize("size", [(1, 1), (7, 500), (500, 7), (640, 360), (33, 31)])
def test_an_image_of_any_shape_fills_the_frame(tmp_path: Path, size: tuple[int, int], fit: str) -> None:
    white = np.full((size[1], size[0], 3), 255, np.uint8)
    picture = rendered(
        BackgroundSettings("image", path=write(tmp_path / "i.png", white), fit=fit, colour="#000")  # type: ignore[arg-type]
    )
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert picture.y[HEIGHT // 2, WIDTH // 2] == 235
    if fit != "contain":
        assert picture.y.min() == 235


def test_contain_borders_with_the_colour_and_cover_cuts_off(tmp_path: Path) -> None:
    square = np.zeros((100, 100, 3), np.uint8)
    square[:10] = square[-10:] = 255
    path = write(tmp_path / "square.png", square)
    contained = rendered(BackgroundSettings("image", path=path, fit="contain", colour="#ff0000"))
    assert contained.v[HEIGHT // 4, 0] == 240  # red beside
    assert contained.y[2, WIDTH // 2] == 235  # the whole square between
    covering = rendered(BackgroundSettings("image", path=path, fit="cover"))
    assert covering.y[2, WIDTH // 2] == 16  # the white edge is cut off


@pytest.mark.parametrize("kind", ["grey", "grey16", "colour16", "alpha", "alpha16"])
def test_images_of_every_depth(tmp_path: Path, kind: str) -> None:
    """A quarter red at full range, or what is nearest to it; transparent pixels show the colour below."""
    full = 65535 if kind.endswith("16") else 255
    shape = (40, 60) if kind.startswith("grey") else (40, 60, 4 if kind.startswith("alpha") else 3)
    image = np.full(shape, full // 2, np.uint16 if full > 255 else np.uint8)
    if kind.startswith("alpha"):
        image[:, :30, 3] = 0
        image[:, 30:, 3] = full
    picture = rendered(
        BackgroundSettings("image", path=write(tmp_path / "i.png", image), fit="stretch", colour="#fff")
    )
    assert abs(int(picture.y[90, 300]) - 126) <= 1
    assert abs(int(picture.y[90, 20]) - (235 if kind.startswith("alpha") else 126)) <= 1
    assert abs(int(picture.u[45, 75]) - 128) <= 1


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


@pytest.mark.parametrize("kind", ["image", "video"])
def test_files_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path, kind: str) -> None:
    if kind == "video":
        pytest.importorskip("gi")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture at all, nor a film\n" * 20)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    broken = [
        (tmp_path / "missing.png", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "empty", "empty"),
    ]
    broken.append((tmp_path / "text.png", "no image" if kind == "image" else "cannot play"))
    if kind == "image":
        broken += [
            (cut(write(tmp_path / "cut.png", noise)), "cut off"),
            (cut(write(tmp_path / "cut.jpg", noise)), "cut off"),
        ]
    for path, reason in broken:
        with pytest.raises(ConfigError, match=reason) as caught:
            open_background(BackgroundSettings(kind, path=path), 64, 64, Matrix.BT709)  # type: ignore[arg-type]
        assert "background.path" in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="needs the path"):
        open_background(BackgroundSettings(kind), 64, 64, Matrix.BT709)  # type: ignore[arg-type]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_blurred_room_keeps_no_detail_and_no_person(strength: float) -> None:
    frame, mask = room()
    background = open_background(BackgroundSettings("blur", strength=strength), WIDTH, HEIGHT, Matrix.BT709)
    blurred = background.render(frame, mask, 0)
    # 55 is the mean of the stripes: neither they nor the bright person are to be seen, not even behind them.
    assert np.abs(blurred.y.astype(int) - 55).max() <= 3


def test_behind_a_person_who_fills_the_frame_there_is_the_colour() -> None:
    frame, _ = room()
    everybody = mask_of(np.ones((90, 160), np.float32))
    background = open_background(BackgroundSettings("blur", colour="#fff"), WIDTH, HEIGHT, Matrix.BT709)
    assert background.render(frame, everybody, 0).y.min() >= 234


def test_without_a_mask_the_blur_is_at_its_strongest() -> None:
    frame, _ = room()
    weak, strong = (
        open_background(BackgroundSettings("blur", strength=s), WIDTH, HEIGHT, Matrix.BT709)
        for s in (0.0, 1.0)
    )
    unmasked = weak.render(frame, None, 0).y.copy()
    np.testing.assert_array_equal(unmasked, strong.render(frame, None, 0).y)
    steepest = np.abs(np.diff(unmasked.astype(int), axis=1)).max()
    assert steepest <= 6  # of the 190 that the person stands out by


def test_the_preview_tints_the_person_and_only_the_person() -> None:
    frame, mask = room()
    background = open_background(BackgroundSettings("none"), WIDTH, HEIGHT, Matrix.BT709)
    assert background.shows_room
    out = I420.allocate(WIDTH, HEIGHT)
    alpha = refine(mask, shrink(frame.picture, (160, 90)), MatteSettings("fast"))
    composite(background.front(frame), alpha, background.render(frame, mask, 0), out)
    np.testing.assert_array_equal(out.y, frame.picture.y)
    assert out.u[60, 80] < 110 > out.v[60, 80]  # green
    assert (out.u[:10] == 120).all()
    assert (out.v[:10] == 130).all()


def film(path: Path, frames: int, fps: int = 25) -> Path:
    """A film whose picture number n is grey of level 20 + 8 n."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    assert writer.isOpened()
    for n in range(frames):
        writer.write(np.full((48, 64, 3), 20 + 8 * n, np.uint8))
    writer.release()
    return path


def shown_at(background: Background, now_ms: int, wanted: int | None = None) -> int:
    """The number of the picture that is shown, given that the decoder has had time to get there."""
    frame = frame_of(I420.allocate(64, 48))
    number = -1
    for _ in range(200):
        luma = int(background.render(frame, None, now_ms * 1_000_000).y[24, 32])
        number = round(((luma - 16) * 255 / 219 - 20) / 8)
        if number == wanted:
            break
        time.sleep(0.01)  # the decoder's own threads are at work
    return number


def test_a_video_plays_in_time_and_starts_again(tmp_path: Path) -> None:
    pytest.importorskip("gi")
    settings = BackgroundSettings("video", path=film(tmp_path / "film.avi", 20), fit="stretch")
    background = open_background(settings, 64, 48, Matrix.BT709)
    try:
        for now_ms, wanted in [(5000, 0), (5030, 0), (5045, 1), (5405, 10), (5770, 19), (5805, 0), (6000, 5)]:
            assert shown_at(background, now_ms, wanted) == wanted
    finally:
        background.close()
        background.close()


def test_changing_the_background_between_two_frames_leaves_both_whole(tmp_path: Path) -> None:
    pytest.importorskip("gi")
    film_settings = BackgroundSettings("video", path=film(tmp_path / "film.avi", 5), fit="stretch")
    picture = I420.filled(64, 48, (90, 128, 128))
    empty = mask_of(np.zeros((12, 16), np.float32))
    alpha = refine(empty, shrink(picture, (16, 12)), MatteSettings())
    seen = []
    current = open_background(film_settings, 64, 48, Matrix.BT709)
    shown_at(current, 0, 0)
    for seq in range(6):
        if seq == 3:
            following = open_background(BackgroundSettings("colour", colour="#fff"), 64, 48, Matrix.BT709)
            current, previous = following, current
            previous.close()
        out = I420.allocate(64, 48)
        composite(picture, alpha, current.render(frame_of(picture, seq), empty, 0), out)
        assert out.y.min() == out.y.max()
        seen.append(int(out.y[0, 0]))
    assert seen[3:] == [235] * 3
    assert max(seen[:3]) < 60


def test_steady_state_allocates_less_than_a_frame_and_keeps_nothing() -> None:
    width, height = 1280, 720
    rng = np.random.default_rng(0)
    picture = I420.allocate(width, height)
    picture.buffer[:] = rng.integers(16, 236, picture.buffer.size, dtype=np.uint8)
    probability = np.zeros((144, 256), np.float32)
    probability[40:, 100:150] = 1
    mask = mask_of(np.asarray(cv2.GaussianBlur(probability, (0, 0), 2), np.float32))
    background = open_background(BackgroundSettings("blur"), width, height, picture.matrix)
    out = I420.allocate(width, height)

    def one_frame() -> None:
        small = shrink(picture, (256, 144))
        alpha = refine(mask, small, MatteSettings())
        composite(picture, alpha, background.render(frame_of(picture), mask, 0), out)

    for _ in range(3):
        one_frame()
    tracemalloc.start()
    for _ in range(20):
        one_frame()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < picture.buffer.size / 50
    assert peak < picture.buffer.size


def test_a_colour_takes_the_memory_of_its_rows_once() -> None:
    """The composite then reads it from the cache, whatever the picture's size."""
    picture = rendered(BackgroundSettings(type="colour", colour="#204060"), 1281, 721)
    assert (picture.width, picture.height) == (1281, 721)
    assert picture.u.shape == picture.v.shape == (361, 641)
    for plane in picture.planes:
        assert plane.strides[0] == 0
        assert not plane.flags.writeable
        assert len(np.unique(plane)) == 1
