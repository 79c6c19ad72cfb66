from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_seg import gstreamer
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.sources import ArgusSettings, GstSettings, Source, open_source
from edge_seg.sources.argus import pipeline_text
from edge_seg.sources.base import SourceSettings
from edge_seg.types import Frame
from tests import clips

pytest.importorskip("gi")
SECOND_NS = 1_000_000_000


def frames_of(source: Source) -> list[Frame]:
    """All frames until the source ends."""
    frames = []
    while True:
        try:
            frame = source.read(5 * SECOND_NS)
        except SourceLost:
            return frames
        assert frame is not None, "no frame within 5 s"
        assert source.format.width == frame.picture.width
        frames.append(frame)


def test_any_text_that_comes_to_raw_video_is_a_source() -> None:
    source = open_source(
        GstSettings(
            launch="videotestsrc is-live=true\n  ! video/x-raw,format=RGB,width=322,height=242,framerate=25/1"
        )
    )
    frames = [source.read(5 * SECOND_NS) for _ in range(3)]
    assert [frame is not None and frame.seq for frame in frames] == [0, 1, 2]
    assert frames[0] is not None
    assert (frames[0].picture.width, frames[0].picture.height) == (322, 242)
    assert source.format.fps == 25
    source.close()


def test_a_file_in_it_is_played_by_the_clock(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mkv", lambda i: clips.numbered(64, 48, i), 15)
    source = open_source(GstSettings(launch=f"filesrc location={path} ! decodebin"))
    frames = frames_of(source)
    steps = np.diff([frame.captured_ns for frame in frames]) / 1e6
    np.testing.assert_allclose(steps, 1000 / 30, atol=1)
    source.close()


def test_the_size_may_change_in_mid_stream(tmp_path: Path) -> None:
    for index, width in enumerate((64, 96)):
        clips.write_clip(
            tmp_path / f"{index}.mkv",
            lambda _, w=width: clips.quarters(w, 48),
            5,  # type: ignore[misc]
        )
    first, second = (f"filesrc location={tmp_path}/{index}.mkv ! decodebin ! c." for index in (0, 1))
    source = open_source(GstSettings(launch=f"concat name=c {first} {second} c."))
    widths = [frame.picture.width for frame in frames_of(source)]
    assert sorted(set(widths)) == [64, 96]
    source.close()


@pytest.mark.parametrize(
    ("launch", "error", "what"),
    [
        ("nosuchelement", ConfigError, "nosuchelement"),
        ("videotestsrc !", ConfigError, "source.launch"),
        ("audiotestsrc", ConfigError, "source.launch"),
        ("filesrc location=/nowhere ! decodebin", SourceLost, "not found|No such file"),
        ("videotestsrc num-buffers=0 is-live=true", SourceLost, "ended before the first picture"),
    ],
)
def test_a_text_that_does_not_work_says_why(launch: str, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        open_source(GstSettings(launch=launch))


def test_the_pipeline_of_a_jetson() -> None:
    text = pipeline_text(ArgusSettings(camera=1, mode=2, width=1920, height=1080, fps=29.97, flip="180"))
    assert "nvarguscamerasrc name=camera sensor-id=1 sensor-mode=2 " in text
    assert "video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=30000/1001" in text.replace(
        "2997/100", "30000/1001"
    )
    assert "nvvidconv flip-method=2 ! video/x-raw,format=I420" in text


def test_the_pipeline_of_a_jetson_with_elements_that_are_everywhere_delivers_frames() -> None:
    text = pipeline_text(ArgusSettings(width=320, height=240))
    for jetson, here in (
        ("nvarguscamerasrc name=camera sensor-id=0 sensor-mode=-1", "videotestsrc is-live=true"),
        ("(memory:NVMM)", ""),
        ("nvvidconv flip-method=0", "videoconvert"),
    ):
        assert jetson in text
        text = text.replace(jetson, here)
    pipeline = gstreamer.load().parse_launch(text)
    gst = gstreamer.load()
    pipeline.set_state(gst.State.PLAYING)
    sample = pipeline.get_by_name("sink").emit("try-pull-sample", 10 * SECOND_NS)
    pipeline.set_state(gst.State.NULL)
    assert sample.get_caps().get_structure(0).get_string("format") == "I420"


def test_a_jetsons_camera_elsewhere_is_a_mistake() -> None:
    settings: SourceSettings = ArgusSettings()
    with pytest.raises(ConfigError, match="nvarguscamerasrc and nvvidconv missing: is this a Jetson"):
        open_source(settings)
