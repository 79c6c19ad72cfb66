from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from edge_seg import gstreamer
from edge_seg.errors import SourceLost
from edge_seg.sources import V4l2Settings, open_source
from edge_seg.sources.v4l2 import FORMATS, Mode, check_device, choose_mode, modes_of, pipeline_text

USB_WEBCAM = [
    Mode("YUY2", 640, 480, Fraction(30)),
    Mode("YUY2", 1280, 720, Fraction(10)),
    Mode("MJPEG", 640, 480, Fraction(30)),
    Mode("MJPEG", 1280, 720, Fraction(30)),
    Mode("MJPEG", 1920, 1080, Fraction(30)),
    Mode("H264", 1280, 720, Fraction(30)),
    Mode("GRAY8", 1280, 720, Fraction(60)),
]


@pytest.mark.parametrize(
    ("width", "height", "fps", "expected"),
    [
        (640, 480, 30.0, Mode("YUY2", 640, 480, Fraction(30))),  # nothing to decode
        (1280, 720, 30.0, Mode("MJPEG", 1280, 720, Fraction(30))),  # raw is too slow over USB 2
        (1280, 720, 10.0, Mode("YUY2", 1280, 720, Fraction(10))),
        (1280, 800, 30.0, Mode("MJPEG", 1280, 720, Fraction(30))),  # the nearest size
        (4096, 2160, 60.0, Mode("MJPEG", 1920, 1080, Fraction(30))),
    ],
)
def test_the_mode_is_chosen_by_size_then_rate_then_cost(
    width: int, height: int, fps: float, expected: Mode
) -> None:
    assert choose_mode(USB_WEBCAM, width, height, fps) == expected
    assert choose_mode(USB_WEBCAM[::-1], width, height, fps) == expected


def test_i420_is_preferred_and_ntsc_rates_count_as_whole_ones() -> None:
    modes = [Mode("YUY2", 640, 480, Fraction(30)), Mode("I420", 640, 480, Fraction(30000, 1001))]
    assert choose_mode(modes, 640, 480, 30.0) == modes[1]


def test_nothing_usable_is_no_mode() -> None:
    assert choose_mode([], 640, 480, 30.0) is None
    assert choose_mode([Mode("GRAY8", 640, 480, Fraction(30))], 640, 480, 30.0) is None


def test_modes_are_read_from_lists_and_ranges_of_caps() -> None:
    pytest.importorskip("gi")
    caps = gstreamer.load().Caps.from_string(
        "video/x-raw,format={YUY2,NV12},width=640,height=480,framerate={(fraction)30/1,(fraction)15/1};"
        "image/jpeg,width=1280,height=720,framerate=(fraction)30/1;"
        "video/x-raw,format=I420,width=[2,1920,2],height=[1,1200],framerate=[(fraction)0/1,(fraction)60/1];"
        "video/x-bayer,format=rggb,width=640,height=480,framerate=(fraction)30/1"
    )
    modes = modes_of(caps, 1281, 720, 25.0)
    assert modes == [
        Mode("YUY2", 640, 480, Fraction(30)),
        Mode("YUY2", 640, 480, Fraction(15)),
        Mode("NV12", 640, 480, Fraction(30)),
        Mode("NV12", 640, 480, Fraction(15)),
        Mode("MJPEG", 1280, 720, Fraction(30)),
        Mode("I420", 1280, 720, Fraction(25)),
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_a_pipeline_that_gstreamer_accepts(kind: str) -> None:
    pytest.importorskip("gi")
    text = pipeline_text(Mode(kind, 640, 480, Fraction(30)))
    pipeline = gstreamer.load().parse_launch(text)
    assert pipeline.get_by_name("camera") is not None
    assert pipeline.get_by_name("sink").get_property("sync") is False


def test_a_camera_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    missing = tmp_path / "video9"
    with pytest.raises(SourceLost, match="no such device; no camera is plugged in"):
        check_device(missing, by_id)
    (by_id / "usb-Acme_Cam-index0").touch()
    with pytest.raises(SourceLost, match=r"cameras here: .*usb-Acme_Cam-index0"):
        check_device(missing, by_id)


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(SourceLost, match="sources of type file"):
        check_device(tmp_path / "clip.mp4")


def test_a_device_that_is_no_camera_is_refused() -> None:
    pytest.importorskip("gi")
    with pytest.raises(SourceLost, match="/dev/null"):
        open_source(V4l2Settings(device="/dev/null"))
