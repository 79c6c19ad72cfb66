from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest

from edge_seg.errors import ConfigError, SourceLost
from edge_seg.geometry import Geometry
from edge_seg.sources import AutoSettings, GstSettings, SourceFormat, SourceSettings, V4l2Settings
from edge_seg.sources import auto as auto_module
from edge_seg.sources.auto import AutoSource, Candidate, candidates, v4l2_nodes
from edge_seg.types import Frame, Matrix
from tests.fakes import libcamera, picamera2


class Camera:
    live = True
    format = SourceFormat(64, 48, Fraction(30), Matrix.BT709)

    def __init__(self, name: str, error: Exception | None) -> None:
        self.name, self._error = name, error
        self.is_open = False

    def open(self) -> None:
        if self._error is not None:
            raise self._error
        self.is_open = True

    def read(self, timeout_ns: int) -> Frame | None:
        return None

    def close(self) -> None:
        self.is_open = False


def auto(*errors: Exception | None) -> tuple[AutoSource, list[Camera]]:
    cameras = [Camera(f"camera {index}", error) for index, error in enumerate(errors)]

    def make(settings: SourceSettings) -> Camera:
        assert isinstance(settings, GstSettings)
        return cameras[int(settings.launch)]

    found = [Candidate(camera.name, GstSettings(launch=str(index))) for index, camera in enumerate(cameras)]
    return AutoSource(AutoSettings(), make, lambda _: found), cameras


def test_the_first_that_works_is_taken_and_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source, cameras = auto(SourceLost("busy"), ConfigError("no driver"), None, None)
    source.open()
    assert [camera.is_open for camera in cameras] == [False, False, True, False]
    assert source.name == "camera 2"
    assert "source: camera 2, the first camera that works" in caplog.text
    assert source.format.width == 64
    source.close()
    assert not cameras[2].is_open


def test_when_none_works_it_says_why_for_each() -> None:
    source, _ = auto(SourceLost("a: busy"), SourceLost("b: no permission"))
    with pytest.raises(SourceLost, match=r"a: busy; b: no permission\); `edge-seg probe` says more"):
        source.open()
    source, _ = auto()
    with pytest.raises(SourceLost, match="none is plugged in"):
        source.open()


def test_nodes_come_by_number_with_the_name_that_survives_replugging(tmp_path: Path) -> None:
    for name in ("video10", "video2", "video0", "videodev", "vbi0"):
        (tmp_path / name).touch()
    (tmp_path / "v4l/by-id").mkdir(parents=True)
    (tmp_path / "v4l/by-id/usb-Cam-index0").symlink_to(tmp_path / "video2")
    assert list(v4l2_nodes(tmp_path)) == [
        tmp_path / "video0",
        tmp_path / "v4l/by-id/usb-Cam-index0",
        tmp_path / "video10",
    ]


def test_csi_cameras_come_before_those_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picamera2, "hardware", picamera2.Hardware())
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    monkeypatch.setattr(auto_module, "_is_camera", lambda path: path.name != "video1")
    for name in ("video0", "video1"):
        (tmp_path / name).touch()
    found = [
        candidate.settings for candidate in candidates(AutoSettings(width=640), tmp_path, tmp_path / "no")
    ]
    assert [settings.type for settings in found] == ["csi", "v4l2"]
    assert found[1] == V4l2Settings(device=str(tmp_path / "video0"), width=640)
    jetson = [
        candidate.settings.type for candidate in candidates(AutoSettings(), tmp_path, tmp_path / "video0")
    ]
    assert jetson == ["argus", "v4l2"]


def test_a_geometry_reaches_the_camera_that_worked() -> None:
    source, cameras = auto(SourceLost("busy"), None)
    source.open()
    source.geometry = Geometry(mirror=True)
    assert cameras[1].geometry == Geometry(mirror=True)  # type: ignore[attr-defined]
    source.close()
