from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edge_seg.config import Config
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.geometry import Geometry
from edge_seg.pipeline import Pipeline
from edge_seg.sources import CsiSettings, csi, make_source, open_source
from edge_seg.sources.csi import CsiSource, capture_time, lores_size
from edge_seg.timings import StageTimes
from edge_seg.types import I420, Frame, Matrix
from tests.fakes import libcamera, picamera2

SECOND_NS = 1_000_000_000


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Iterator[picamera2.Hardware]:
    hardware = picamera2.Hardware()
    monkeypatch.setattr(picamera2, "hardware", hardware)
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    yield hardware
    hardware.hangs_on_close.set()
    for camera in hardware.opened:
        camera.close()


def first_frame(settings: CsiSettings) -> tuple[CsiSource, Frame]:
    source = open_source(settings)
    assert isinstance(source, CsiSource)
    frame = source.read(SECOND_NS)
    assert frame is not None
    return source, frame


def means(picture: I420) -> list[float]:
    assert all(plane.min() == plane.max() for plane in picture.planes), "padding or another picture got in"
    return [float(plane[0, 0]) for plane in picture.planes]


@pytest.mark.parametrize("size", [(1280, 720), (640, 480), (854, 480), (1018, 570)])
def test_both_streams_come_without_the_padding_of_their_rows(
    hardware: picamera2.Hardware, size: tuple[int, int]
) -> None:
    source, frame = first_frame(CsiSettings(width=size[0], height=size[1]))
    assert (frame.picture.width, frame.picture.height) == size
    assert means(frame.picture) == [50 + frame.seq % 100, 100, 150]
    assert frame.lores is not None
    assert means(frame.lores) == means(frame.picture)
    source.close()


def test_buffers_go_back_at_once_and_are_not_touched_afterwards(hardware: picamera2.Hardware) -> None:
    source, frame = first_frame(CsiSettings())
    kept = []
    for _ in range(5 * picamera2.BUFFERS):
        frame = source.read(SECOND_NS)
        assert frame is not None, "the camera has no buffer left"
        kept.append(frame)
    assert hardware.used_after_release == 0
    for frame in kept:
        assert means(frame.picture)[0] == 50 + frame.seq % 100
    source.close()


def test_frames_that_nobody_read_are_counted_and_only_the_newest_waits(hardware: picamera2.Hardware) -> None:
    source, first = first_frame(CsiSettings())
    time.sleep(0.1)  # the camera works on meanwhile: nothing is waited for
    later = source.read(SECOND_NS)
    assert later is not None
    assert later.seq > first.seq + 3
    assert time.monotonic_ns() - later.captured_ns < SECOND_NS // 10
    source.close()


def test_the_capture_time_is_that_of_the_sensor(hardware: picamera2.Hardware) -> None:
    source, frame = first_frame(CsiSettings())
    age_ms = (time.monotonic_ns() - frame.captured_ns) / 1e6
    assert age_ms >= 10  # the fake's sensor stamps 10 ms before the buffer completes
    source.close()


def test_a_time_stamp_of_either_clock_is_understood_and_nonsense_is_not() -> None:
    now, boot = 1000 * SECOND_NS, 5000 * SECOND_NS
    assert capture_time(now - 20_000_000, now, boot) == now - 20_000_000
    assert capture_time(boot - 20_000_000, now, boot) == now - 20_000_000
    assert capture_time(None, now, boot) == now
    assert capture_time(17, now, boot) == now


def test_a_request_that_was_silently_changed_is_taken_for_what_it_became(
    hardware: picamera2.Hardware, caplog: pytest.LogCaptureFixture
) -> None:
    def adjust(config: dict[str, Any]) -> None:
        config["main"].update(format="BGR888", size=(640, 360))
        config["lores"] = None

    hardware.adjust = adjust
    source, frame = first_frame(CsiSettings())
    assert (frame.picture.width, frame.picture.height) == (640, 360)
    # (200, 100, 50) in memory is red, green, blue in BGR888; BT.709, 8-bit limited range (ITU-R BT.709-6, 3.2 to 3.4).
    expected = (
        16 + (46.56 * 200 + 156.63 * 100 + 15.81 * 50) / 255,
        128 + (-25.67 * 200 - 86.33 * 100 + 112 * 50) / 255,
        128 + (112 * 200 - 101.73 * 100 - 10.27 * 50) / 255,
    )
    np.testing.assert_allclose(means(frame.picture), expected, atol=1)
    assert frame.lores is None
    assert "delivers BGR888 instead of YUV420" in caplog.text
    source.close()


def test_a_small_picture_of_another_shape_is_not_used(
    hardware: picamera2.Hardware, caplog: pytest.LogCaptureFixture
) -> None:
    hardware.adjust = lambda config: config["lores"].update(size=(256, 256))
    source, frame = first_frame(CsiSettings())
    assert frame.lores is None
    assert "256x256, which cannot be used" in caplog.text
    source.close()


def test_a_format_that_nobody_knows_is_an_error(hardware: picamera2.Hardware) -> None:
    hardware.adjust = lambda config: config["main"].update(format="SBGGR10")
    with pytest.raises(SourceLost, match="delivers SBGGR10"):
        open_source(CsiSettings())
    assert not hardware.opened[0].is_open


def test_full_range_becomes_limited_range(hardware: picamera2.Hardware) -> None:
    hardware.adjust = lambda config: config.update(colour_space=libcamera.ColorSpace.Sycc())
    source, frame = first_frame(CsiSettings())
    assert frame.picture.matrix is Matrix.BT601
    assert means(frame.picture)[1:] == [
        round(128 + (100 - 128) * 224 / 255),
        round(128 + (150 - 128) * 224 / 255),
    ]
    source.close()


def test_settings_become_controls(hardware: picamera2.Hardware) -> None:
    source, _ = first_frame(
        CsiSettings(
            fps=25,
            exposure_us=8000,
            gain=2.5,
            awb="daylight",
            focus="manual",
            lens_dioptres=1.5,
            hflip=True,
            tuning_file="/t.json",
        )
    )
    camera = hardware.opened[0]
    assert camera.camera_config["controls"] == {
        "FrameDurationLimits": (40000, 40000),
        "ExposureTime": 8000,
        "AnalogueGain": 2.5,
        "AwbMode": libcamera.AwbModeEnum.Daylight,
        "AfMode": libcamera.AfModeEnum.Manual,
        "LensPosition": 1.5,
    }
    assert camera.camera_config["transform"] == libcamera.Transform(hflip=True)
    assert camera.tuning == "/t.json"
    assert source.format.fps == 25
    source.close()


def test_a_control_that_this_camera_has_not_is_left_out(
    hardware: picamera2.Hardware, caplog: pytest.LogCaptureFixture
) -> None:
    hardware.controls.discard("AfMode")
    source, _ = first_frame(CsiSettings(focus="continuous"))
    assert "has no AfMode" in caplog.text
    source.close()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), (256, 144)),
        ((1920, 1080), (256, 144)),
        ((640, 480), (342, 256)),
        ((1024, 1024), (256, 256)),
        ((480, 640), (256, 342)),
        ((320, 240), None),
        ((256, 144), None),
    ],
)
def test_the_small_picture_has_the_shape_of_the_large_one_and_is_enough_for_the_models(
    size: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    found = lores_size(*size)
    # One of 320x240 is asked for at 342x256: larger than the picture, so not at all.
    assert found == expected


@pytest.mark.parametrize(("grid", "used"), [((256, 144), True), ((128, 72), True), ((256, 256), False)])
def test_model_and_flow_see_the_small_picture_where_it_is_large_enough(
    grid: tuple[int, int], used: bool
) -> None:
    pipeline = Pipeline(Config(), grid, StageTimes())
    frame = Frame(I420.filled(1280, 720, (50, 128, 128)), 0, 0, lores=I420.filled(256, 144, (90, 128, 128)))
    small = pipeline.shrink(frame)
    assert (small.width, small.height) == grid
    assert int(small.y[0, 0]) == (90 if used else 50)


def test_a_camera_that_is_not_there_is_waited_for(hardware: picamera2.Hardware) -> None:
    hardware.cameras.clear()
    with pytest.raises(SourceLost, match="No camera number 0 found"):
        open_source(CsiSettings())


def test_a_camera_that_does_not_start_is_let_go(hardware: picamera2.Hardware) -> None:
    hardware.fails_to_start = "failed to start camera: Input/output error"
    with pytest.raises(SourceLost, match="Input/output error"):
        open_source(CsiSettings())
    hardware.fails_to_start = ""
    source, _ = first_frame(CsiSettings())
    source.close()


def test_a_camera_that_stops_delivering_gives_no_frame_and_no_error(hardware: picamera2.Hardware) -> None:
    source, _ = first_frame(CsiSettings())
    hardware.delivers = False
    time.sleep(0.05)
    source.read(0)
    assert source.read(20_000_000) is None
    source.close()
    with pytest.raises(SourceLost, match="closed"):
        source.read(0)


def test_a_driver_that_hangs_when_it_is_closed_is_left_behind(
    hardware: picamera2.Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csi, "CLOSE_TIMEOUT_S", 0.05)
    source, _ = first_frame(CsiSettings())
    hardware.hangs_on_close.clear()
    done = threading.Thread(target=source.close)
    done.start()
    done.join(10)
    assert not done.is_alive()


def test_without_picamera2_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(ConfigError, match="apt install python3-picamera2"):
        open_source(CsiSettings())


def test_the_picture_is_turned_as_it_is_copied_and_cropped_without_its_small_one(
    hardware: picamera2.Hardware,
) -> None:
    for geometry, size, has_small in (
        (Geometry(rotate=90), (480, 640), True),
        (Geometry(crop_left=0.5), (320, 480), False),
    ):
        source = make_source(CsiSettings(width=640, height=480), geometry)
        source.open()
        frame = source.read(SECOND_NS)
        assert frame is not None
        assert (frame.picture.width, frame.picture.height) == size
        assert (source.format.width, source.format.height) == size
        assert means(frame.picture)[1:] == [100, 150]
        assert (frame.lores is not None) == has_small
        if frame.lores is not None:
            assert frame.lores.height > frame.lores.width
        source.close()


def test_another_geometry_holds_from_the_next_picture_on(hardware: picamera2.Hardware) -> None:
    source, first = first_frame(CsiSettings(width=640, height=480))
    for geometry, size, has_small in (
        (Geometry(mirror=True), (640, 480), True),
        (Geometry(rotate=90), (480, 640), True),
        (Geometry(crop_left=0.5), (320, 480), False),
        (Geometry(), (640, 480), True),
    ):
        source.geometry = geometry
        frame = source.read(SECOND_NS)
        assert frame is not None
        assert frame.seq > first.seq
        assert (
            (frame.picture.width, frame.picture.height) == size == (source.format.width, source.format.height)
        )
        assert (frame.lores is not None) == has_small
    source.close()


def test_a_camera_that_another_program_has_is_named_as_such(hardware: picamera2.Hardware) -> None:
    source, _ = first_frame(CsiSettings())
    try:
        with pytest.raises(
            SourceLost, match=r"did not complete: .* resource busy: another program uses the camera"
        ):
            open_source(CsiSettings())
    finally:
        source.close()


def test_a_closed_camera_is_called_back_no_more_and_refers_to_nothing(hardware: picamera2.Hardware) -> None:
    source, _ = first_frame(CsiSettings())
    (camera,) = hardware.opened
    callback = camera.post_callback
    assert callback is not None
    source.close()
    assert camera.post_callback is None
    callback(picamera2.CompletedRequest({"main": None, "lores": None}, 0))  # one that was under way
    with pytest.raises(SourceLost, match="closed"):
        source.read(0)
