from __future__ import annotations

import io
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from edge_seg.errors import SourceLost
from edge_seg.sources import SyntheticSettings
from edge_seg.sources.synthetic import SyntheticSource, draw
from edge_seg.sources.timecode import Code, read_code
from edge_seg.types import Frame

SMALL = SyntheticSettings(width=320, height=180, noise=0)
MOTIONS = ["still", "sway", "walk", "enter_leave", "wave", "pan"]


def truth_of(frame: Frame) -> np.ndarray:
    assert frame.truth is not None
    return frame.truth


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_frame_follows_from_seed_and_index_alone(motion: str) -> None:
    settings = replace(SMALL, motion=motion, noise=3.0)  # type: ignore[arg-type]
    first, again = draw(settings, 40, 7), draw(settings, 40, 7)
    np.testing.assert_array_equal(first.picture.buffer, again.picture.buffer)
    np.testing.assert_array_equal(truth_of(first), truth_of(again))
    other = draw(replace(settings, seed=1), 40, 7)
    assert (other.picture.y != first.picture.y).mean() > 0.5


@pytest.mark.parametrize(("width", "height"), [(320, 180), (321, 181), (180, 320), (64, 64), (641, 360)])
def test_truth_is_a_person_of_the_pictures_size(width: int, height: int) -> None:
    truth = truth_of(draw(replace(SMALL, width=width, height=height), 0, 0))
    assert truth.shape == (height, width)
    assert set(np.unique(truth)) == {0, 255}
    assert 0.2 < truth.mean() / 255 < 0.8
    assert truth[-1, width // 2] == 255


def test_outside_of_the_truth_stands_the_still_room() -> None:
    one, other = draw(SMALL, 0, 0), draw(SMALL, 30, 0)
    edge = np.ones((5, 5), np.uint8)  # what is half covered belongs to neither side exactly
    outside = (cv2.dilate(truth_of(one), edge) == 0) & (cv2.dilate(truth_of(other), edge) == 0)
    assert outside.mean() > 0.3
    np.testing.assert_array_equal(one.picture.y[outside], other.picture.y[outside])
    moved = truth_of(one) != truth_of(other)
    assert (one.picture.y[moved] != other.picture.y[moved]).mean() > 0.8


@pytest.mark.parametrize("motion", ["still", "sway", "wave", "pan"])
def test_the_code_is_read_from_inside_of_the_mask(motion: str) -> None:
    settings = replace(SMALL, motion=motion, noise=4.0, width=640, height=360)  # type: ignore[arg-type]
    for index in range(0, 90, 17):
        frame = draw(settings, index, 10**18 + index)
        cut_out = np.where(truth_of(frame) > 0, frame.picture.y, 16).astype(np.uint8)
        assert read_code(cut_out) == Code(index, 10**18 + index)


def test_the_code_survives_h264_at_2_mbit() -> None:
    settings = replace(SMALL, width=640, height=360, noise=2.0)
    options = {"preset": "ultrafast", "tune": "zerolatency", "maxrate": "2M", "bufsize": "1M"}
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 640, 360, "yuv420p", 2_000_000
        for index in range(20):
            image = av.VideoFrame.from_ndarray(
                np.concatenate(
                    [plane.reshape(-1) for plane in draw(settings, index, index).picture.planes]
                ).reshape(540, 640),
                format="yuv420p",
            )
            image.pts = index
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    file.seek(0)
    read = [read_code(image.to_ndarray()[:360]) for image in av.open(file).decode(video=0)]
    assert read == [Code(index, index) for index in range(20)]


def test_a_cut_changes_room_and_person_at_once() -> None:
    settings = replace(SMALL, cut_every=10)
    before, at, after = (draw(settings, index, 0).picture.y.astype(int) for index in (9, 10, 11))
    assert np.abs(at - before).mean() > 8 * np.abs(after - at).mean()


def test_a_person_enters_an_empty_room_and_leaves_it() -> None:
    settings = replace(SMALL, motion="enter_leave")
    share = [truth_of(draw(settings, index, 0)).mean() / 255 for index in range(0, 300, 15)]
    assert share[0] == 0
    assert max(share) > 0.2
    assert share[-1] == 0


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def opened(clock: Clock, **changes: object) -> SyntheticSource:
    source = SyntheticSource(replace(SMALL, fps=20.0, **changes), clock, clock.sleep)  # type: ignore[arg-type]
    source.open()
    return source


def test_frames_come_at_their_rate_with_the_time_they_were_due() -> None:
    clock = Clock()
    source = opened(clock)
    frames = [source.read(1_000_000_000) for _ in range(4)]
    assert [frame.seq for frame in frames if frame] == [0, 1, 2, 3]
    assert [frame.captured_ns for frame in frames if frame] == [
        5_000_000_000 + n * 50_000_000 for n in range(4)
    ]
    assert clock.now_ns == 5_150_000_000


def test_read_returns_nothing_before_a_frame_is_due() -> None:
    clock = Clock()
    source = opened(clock)
    assert source.read(0) is not None
    assert source.read(20_000_000) is None
    assert clock.now_ns == 5_020_000_000
    frame = source.read(40_000_000)
    assert frame is not None
    assert frame.seq == 1


def test_frames_that_nobody_fetched_are_counted() -> None:
    clock = Clock()
    source = opened(clock)
    source.read(0)
    clock.sleep(0.26)
    frame = source.read(100_000_000)
    assert frame is not None
    assert frame.seq == 5
    assert read_code(frame.picture.y) == Code(5, frame.captured_ns)


def test_without_realtime_no_frame_is_lost_and_no_time_passes() -> None:
    clock = Clock()
    source = opened(clock, realtime=False)
    frames = [source.read(0) for _ in range(3)]
    assert [frame.seq for frame in frames if frame] == [0, 1, 2]
    assert clock.now_ns == 5_000_000_000


def test_a_closed_source_is_lost() -> None:
    source = opened(Clock())
    source.close()
    source.close()
    with pytest.raises(SourceLost):
        source.read(0)
