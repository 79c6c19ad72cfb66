"""The virtual webcam, without one. The real one is in tests/vm."""

import struct
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edge_seg import gstreamer
from edge_seg.errors import SinkError
from edge_seg.sinks import V4l2OutputSettings
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.v4l2 import V4l2Sink, check_device
from edge_seg.sources import video_node
from edge_seg.sources.video_node import VideoNode
from edge_seg.types import I420, Matrix

CAPTURE, OUTPUT, STREAMING = 0x1, 0x2, 0x0400_0000
SMALL = OutputFormat(320, 180, Fraction(30), Matrix.BT601)


def test_a_missing_module_comes_with_the_command_that_loads_it(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"modprobe v4l2loopback video_nr=12 .*v4l2loopback-dkms") as caught:
        check_device(tmp_path / "video12")
    assert caught.value.permanent


def test_a_file_and_a_camera_are_no_virtual_webcams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video0"
    path.touch()
    with pytest.raises(SinkError, match="no video device"):
        check_device(path)
    monkeypatch.setattr(
        video_node, "query", lambda path: VideoNode(path, "uvcvideo", "C920", CAPTURE | STREAMING)
    )
    with pytest.raises(SinkError, match="is C920, into which no pictures can be put"):
        check_device(path)


def test_a_device_without_permission_says_which_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> VideoNode:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(video_node, "query", refuse)
    with pytest.raises(SinkError, match="usermod -aG video"):
        check_device(tmp_path / "video10")


@pytest.mark.parametrize(
    ("flags", "driver", "takes", "is_camera"),
    [
        (CAPTURE | OUTPUT | STREAMING, "v4l2 loopback", True, False),
        (CAPTURE | STREAMING, "v4l2 loopback", True, True),  # exclusive_caps=1, while somebody feeds it
        (OUTPUT | STREAMING, "vivid", True, False),
        (CAPTURE | STREAMING, "uvcvideo", False, True),
    ],
)
def test_what_a_node_can_take_is_what_its_driver_says(
    flags: int, driver: str, takes: bool, is_camera: bool
) -> None:
    answer = struct.pack("=16s32s32sIII12x", driver.encode(), b"card", b"bus", 1, flags, 0)
    node = video_node.parse(Path("/dev/video0"), answer)
    assert node.takes_pictures is takes
    assert node.is_camera is is_camera
    assert node.is_loopback is (driver == "v4l2 loopback")


@pytest.mark.parametrize(("kind", "size"), [("I420", 1.5), ("YUY2", 2), ("NV12", 1.5)])
def test_the_format_is_the_one_that_was_asked_for_and_the_size_stays(kind: str, size: float) -> None:
    sink = V4l2Sink(V4l2OutputSettings(format=kind), element="appsink")  # type: ignore[arg-type]
    sink.open(SMALL)
    gst = gstreamer.load()
    try:
        for width, height in ((320, 180), (640, 480)):
            sink.reformat(OutputFormat(width, height, Fraction(30), Matrix.BT601))
            picture = I420.allocate(width, height, Matrix.BT601)
            for plane, value in zip(picture.planes, (150, 90, 200), strict=True):
                plane[:] = value
            sink.push(picture, time.monotonic_ns())
            sample = sink._pipeline.get_by_name("webcam").emit("try-pull-sample", 5 * gst.SECOND)
            caps = sample.get_caps().get_structure(0)
            assert (caps["format"], caps["width"], caps["height"]) == (kind, 320, 180)
            with sample.get_buffer().map(gst.MapFlags.READ) as mapped:
                data = np.frombuffer(mapped.data, np.uint8)
            assert data.size == 320 * 180 * size
            middle = data[320 * 90 + 160] if kind != "YUY2" else data[2 * (320 * 90 + 160)]
            assert middle == 150
    finally:
        sink.close()


@pytest.mark.parametrize(
    ("message", "debug"),
    [
        ("Device '/dev/video10' is not a output device.", ""),
        ("Call to S_FMT failed", "Device or resource busy"),
    ],
)
def test_a_webcam_that_another_program_feeds_is_named_as_such(message: str, debug: str) -> None:
    sink = V4l2Sink(V4l2OutputSettings())
    assert "/dev/video10: " in str(sink._failed(message, debug))
    assert "another program feeds it" in str(sink._failed(message, debug))
    assert "another program" not in str(sink._failed("No space left on device", ""))
