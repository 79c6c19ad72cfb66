from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_seg.errors import ConfigError, SourceLost
from edge_seg.sources import FileSettings, Source, open_source
from edge_seg.sources.file import explain
from edge_seg.types import Frame, Matrix
from tests import clips

pytest.importorskip("gi")
SECOND_NS = 1_000_000_000


def frames_of(source: Source) -> Iterator[Frame]:
    """All frames until the source ends."""
    while True:
        try:
            frame = source.read(5 * SECOND_NS)
        except SourceLost:
            return
        assert frame is not None, "no frame within 5 s"
        yield frame


def play(path: Path) -> list[Frame]:
    source = open_source(FileSettings(path=str(path)))
    try:
        return list(frames_of(source))
    finally:
        source.close()


def colours(frame: Frame) -> list[tuple[int, ...]]:
    """YUV in the middle of each quarter."""
    return [
        tuple(int(plane[int(plane.shape[0] * y), int(plane.shape[1] * x)]) for plane in frame.picture.planes)
        for y in (0.25, 0.75)
        for x in (0.25, 0.75)
    ]


def test_every_frame_comes_once_in_order_at_its_time(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", lambda i: clips.numbered(64, 48, i), 20, sound=True)
    frames = play(path)
    assert [clips.number_of(frame.picture.y) for frame in frames] == list(range(20))
    assert [frame.seq for frame in frames] == list(range(20))
    steps = np.diff([frame.captured_ns for frame in frames]) / 1e6
    np.testing.assert_allclose(steps, 1000 / 30, atol=0.1)
    assert abs(frames[-1].captured_ns - time.monotonic_ns()) < SECOND_NS


@pytest.mark.parametrize(
    ("name", "size", "how", "matrix"),
    [
        ("hd.mp4", (320, 240), {"colorspace": 1}, Matrix.BT709),
        ("sd.mp4", (320, 240), {"colorspace": 6}, Matrix.BT601),
        ("pal.mp4", (320, 240), {"colorspace": 5}, Matrix.BT601),
        ("untagged_sd.mkv", (320, 240), {}, Matrix.BT601),
        ("odd.mkv", (321, 241), {"codec": "ffv1"}, Matrix.BT601),
        ("stride.webm", (322, 242), {"codec": "libvpx"}, Matrix.BT601),
    ],
)
def test_colours_arrive_untouched_with_their_matrix(
    tmp_path: Path, name: str, size: tuple[int, int], how: dict[str, object], matrix: Matrix
) -> None:
    path = clips.write_clip(tmp_path / name, lambda _: clips.quarters(*size), 2, **how)  # type: ignore[arg-type]
    frame = play(path)[0]
    assert frame.picture.y.shape == (size[1], size[0])
    assert frame.picture.matrix is matrix
    np.testing.assert_allclose(colours(frame), clips.COLOURS, atol=2)


@pytest.mark.parametrize(("name", "codec"), [("jpeg.avi", "mjpeg"), ("full.mkv", "ffv1")])
def test_full_range_is_compressed_to_limited_range(tmp_path: Path, name: str, codec: str) -> None:
    options = {"q": "2"} if codec == "mjpeg" else {}
    path = clips.write_clip(
        tmp_path / name,
        lambda _: clips.quarters(320, 240),
        2,
        codec=codec,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        full_range=True,
        options=options,
        colorspace=5,
    )
    frame = play(path)[0]
    y, u, v = np.array(clips.COLOURS).T
    expected = np.stack(
        [16 + y * 219 / 255, 128 + (u - 128) * 224 / 255, 128 + (v - 128) * 224 / 255], axis=1
    )
    np.testing.assert_allclose(colours(frame), expected, atol=3)


def test_a_turned_phone_clip_stands_upright(tmp_path: Path) -> None:
    turned = clips.write_clip(tmp_path / "turned.mp4", lambda _: clips.quarters(320, 240), 3)
    clips.turn_by_quarter(turned)
    frame = play(turned)[0]
    assert frame.picture.y.shape == (320, 240)
    top_left, top_right, bottom_left, bottom_right = clips.COLOURS
    expected = (bottom_left, top_left, bottom_right, top_right)  # clockwise by a quarter
    np.testing.assert_allclose(colours(frame), expected, atol=2)


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    pts = [0, 40, 50, 200, 260, 300]
    path = clips.write_clip(tmp_path / "vfr.mkv", lambda i: clips.numbered(64, 48, i), len(pts), pts=pts)
    frames = play(path)
    assert [clips.number_of(frame.picture.y) for frame in frames] == list(range(len(pts)))
    times_ms = [(frame.captured_ns - frames[0].captured_ns) / 1e6 for frame in frames]
    np.testing.assert_allclose(times_ms, pts, atol=1.5)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_a_loop_repeats_all_frames_in_step(tmp_path: Path, name: str) -> None:
    path = clips.write_clip(tmp_path / name, lambda i: clips.numbered(64, 48, i), 12)
    source = open_source(FileSettings(path=str(path), loop=True))
    try:
        frames = [frame for frame, _ in zip(frames_of(source), range(30), strict=False)]
    finally:
        source.close()
    assert [clips.number_of(frame.picture.y) for frame in frames] == [i % 12 for i in range(30)]
    assert [frame.seq for frame in frames] == list(range(30))
    steps = np.diff([frame.captured_ns for frame in frames]) / 1e6
    np.testing.assert_allclose(steps, 1000 / 30, atol=1.5)


def test_a_file_that_knows_no_segments_is_looped_nevertheless(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.ts", lambda i: clips.numbered(64, 48, i), 30)
    source = open_source(FileSettings(path=str(path), loop=True))
    try:
        frames = [frame for frame, _ in zip(frames_of(source), range(70), strict=False)]
    finally:
        source.close()
    numbers = [clips.number_of(frame.picture.y) for frame in frames]
    assert len(numbers) == 70
    assert numbers.count(5) >= 2
    assert (np.diff([frame.seq for frame in frames]) > 0).all()


def test_a_cut_off_file_plays_what_there_is_and_says_so(tmp_path: Path) -> None:
    def noise(index: int) -> tuple[clips.U8, clips.U8, clips.U8]:
        rng = np.random.default_rng(index)
        flat = clips.numbered(64, 48, 0)
        return rng.integers(30, 200, (48, 64)).astype(np.uint8), flat[1], flat[2]

    whole = clips.write_clip(tmp_path / "whole.mkv", noise, 60).read_bytes()
    path = tmp_path / "half.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    source = open_source(FileSettings(path=str(path)))
    count = len(list(frames_of(source)))
    with pytest.raises(SourceLost, match=r"half\.mkv: is cut off: it ends after 0\.\d s of 2\.0 s"):
        source.read(SECOND_NS)
    source.close()
    assert 15 < count < 45


def make_bad(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "text":
        path.write_text("not a video\n" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.mkdir()
    elif kind == "random":
        path.write_bytes(np.random.default_rng(0).bytes(50_000))
    elif kind == "sound":
        clips.write_sound(path)
    elif kind == "headless":
        clips.write_clip(path, lambda i: clips.numbered(64, 48, i), 30)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "picture":
        clips.write_clip(
            folder / "p.png", lambda _: clips.numbered(64, 48, 1), 1, codec="png", pix_fmt="gray"
        )
        return folder / "p.png"
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file"),
        ("folder", "is a directory"),
        ("empty", "is empty"),
        ("text", "is not a video that can be played"),
        ("random", "is not a video that can be played"),
        ("sound", "holds no picture"),
        ("headless", "is cut off: its index"),
    ],
)
def test_a_file_that_cannot_be_played_is_refused_in_one_line(tmp_path: Path, kind: str, says: str) -> None:
    path = make_bad(kind, tmp_path)
    with pytest.raises(ConfigError, match=says) as caught:
        open_source(FileSettings(path=str(path)))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: ")
    assert "\n" not in problem


def test_a_missing_decoder_names_the_package() -> None:
    debug = (
        "no suitable plugins found:\nMissing decoder: H.264 (High Profile) (video/x-h264, level=(string)4)\n"
    )
    said = explain("Your GStreamer installation is missing a plug-in.", debug)
    assert "H.264 (High Profile)" in said
    assert "sudo apt install gstreamer1.0-libav" in said


def test_strange_characters_in_a_name_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a b%20#?ü!.mp4"
    clips.write_clip(tmp_path / "plain.mp4", lambda i: clips.numbered(64, 48, i), 3).rename(path)
    assert len(play(path)) == 3


def test_closing_twice_and_reading_afterwards(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", lambda i: clips.numbered(64, 48, i), 30)
    source = open_source(FileSettings(path=str(path), loop=True))
    assert source.read(SECOND_NS) is not None
    source.close()
    source.close()
    with pytest.raises(SourceLost):
        source.read(SECOND_NS)
    source.open()  # as a supervisor does after a loss
    frame = source.read(SECOND_NS)
    source.close()
    assert frame is not None
    assert clips.number_of(frame.picture.y) == 0


def test_closing_lets_go_of_everything(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", lambda i: clips.numbered(64, 48, i), 5)

    def open_files_after_use() -> int:
        source = open_source(FileSettings(path=str(path), loop=True))
        source.read(SECOND_NS)
        source.close()
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    open_files_after_use()
    counts = [open_files_after_use() for _ in range(4)]
    assert counts[-1] <= counts[0] + 3  # each pipeline that is not freed keeps four files open


def test_closing_from_another_thread_ends_a_read(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mp4", lambda i: clips.numbered(64, 48, i), 10)
    source = open_source(FileSettings(path=str(path), loop=True))
    reading = threading.Event()
    ended: list[Exception] = []

    def read() -> None:
        try:
            while source.read(30 * SECOND_NS) is not None:
                reading.set()
        except SourceLost as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(10)
    source.close()
    reader.join(10)
    assert not reader.is_alive()
    assert len(ended) == 1
