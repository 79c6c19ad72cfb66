from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_seg import cli, encoders, gstreamer, probe
from edge_seg.commands.probe import lines
from edge_seg.errors import SourceLost
from edge_seg.probe import cameras, displays, runtimes
from edge_seg.probe import encoders as encoder_section
from edge_seg.sources import video_node
from edge_seg.sources.v4l2 import V4l2Source
from tests.fakes import libcamera, picamera2


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def raspberry(root: Path) -> Path:
    """A Raspberry Pi 5 as sysfs shows it: one HDMI connector in use, one not, a USB camera, parts of the CSI path."""
    write(root / "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    write(root / "etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
    drm = root / "sys/class/drm"
    for connector, status, modes in (
        ("card1-HDMI-A-1", "connected", "1920x1080\n1920x1080\n1280x720\n"),
        ("card1-HDMI-A-2", "disconnected", ""),
    ):
        write(drm / connector / "status", status + "\n")
        write(drm / connector / "modes", modes)
        write(drm / connector / "enabled", "enabled\n" if modes else "disabled\n")
    (root / "sys/bus/platform/drivers/vc4-drm").mkdir(parents=True)
    (drm / "card1/device").mkdir(parents=True)
    (drm / "card1/device/driver").symlink_to(root / "sys/bus/platform/drivers/vc4-drm")
    write(drm / "version", "drm 1.1.0 20060810\n")
    for number, name in ((0, "HD Pro Webcam C920"), (19, "pispbe-input"), (8, "HD Pro Webcam C920")):
        write(root / f"sys/class/video4linux/video{number}/name", name + "\n")
        write(root / f"dev/video{number}", "")
    (root / "dev/v4l/by-id").mkdir(parents=True)
    (root / "dev/v4l/by-id/usb-046d_C920-video-index0").symlink_to(root / "dev/video0")
    return root


def test_displays_come_from_sysfs_with_their_preferred_mode_first(tmp_path: Path) -> None:
    found = displays.find(raspberry(tmp_path))["displays"]
    assert [(entry["connector"], entry["status"], entry["driver"]) for entry in found] == [
        ("HDMI-A-1", "connected", "vc4-drm"),
        ("HDMI-A-2", "disconnected", "vc4-drm"),
    ]
    assert found[0]["modes"] == ["1920x1080", "1280x720"]
    assert found[0]["enabled"] is True


CAPTURE, OUTPUT, STREAMING, DEVICE_CAPS = 0x1, 0x2, 0x0400_0000, 0x8000_0000


def capability(driver: str, card: str, flags: int, device: int | None = None) -> bytes:
    """struct v4l2_capability as the kernel fills it."""
    both = flags | (DEVICE_CAPS if device is not None else 0)
    return struct.pack("=16s32s32sIII12x", driver.encode(), card.encode(), b"usb-1", 1, both, device or 0)


@pytest.mark.parametrize(
    ("answer", "is_camera"),
    [
        (capability("uvcvideo", "C920", CAPTURE | STREAMING, CAPTURE | STREAMING), True),
        (
            capability("uvcvideo", "C920", CAPTURE | STREAMING, 0x00A0_0000 | STREAMING),
            False,
        ),  # its metadata node
        (capability("old", "TV card", CAPTURE | STREAMING), True),
        (capability("bcm2835-codec", "decode", CAPTURE | OUTPUT | STREAMING), False),
        (capability("unicam", "unicam", CAPTURE | STREAMING), False),
    ],
)
def test_a_node_is_a_camera_when_pictures_come_out_of_it_alone(answer: bytes, is_camera: bool) -> None:
    assert video_node.parse(Path("/dev/video0"), answer).is_camera is is_camera


def test_cameras_are_named_by_what_survives_replugging_and_parts_of_the_board_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = raspberry(tmp_path)

    def query(path: Path) -> video_node.VideoNode:
        if path.name == "video8":
            raise PermissionError(13, "Permission denied")
        is_webcam = path.name == "video0"
        flags = CAPTURE | STREAMING
        return video_node.VideoNode(
            path, "uvcvideo" if is_webcam else "pispbe", "C920" if is_webcam else "pispbe", flags
        )

    def refuse(_: V4l2Source) -> list[Any]:
        raise SourceLost("/dev/video0: is in use by another program")

    monkeypatch.setattr(video_node, "query", query)
    monkeypatch.setattr(V4l2Source, "modes", refuse)
    monkeypatch.setitem(sys.modules, "picamera2", None)
    found = cameras.find(root)
    first, locked, part = found["cameras"]
    assert first["source"] == {"type": "v4l2", "device": "/dev/v4l/by-id/usb-046d_C920-video-index0"}
    assert first["problem"] == "/dev/video0: is in use by another program"
    assert "usermod -aG video" in locked["problem"]
    assert part["kind"] == "other"
    assert [item["what"] for item in found["missing"]] == ["picamera2"]
    assert found["missing"][0]["command"] == "sudo apt install python3-picamera2"


def test_cameras_of_libcamera_are_listed_without_its_usb_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware = picamera2.Hardware()
    hardware.cameras.append({"Model": "C920", "Id": "/base/scb/pcie/usb1-1.2", "Num": 1})
    monkeypatch.setattr(picamera2, "hardware", hardware)
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    found = cameras.find(tmp_path)["cameras"]
    assert found == [{"kind": "csi", "name": "imx708", "source": {"type": "csi", "camera": 0}}]


def test_encoders_are_tried_and_one_that_works_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("gi")
    monkeypatch.setattr(encoders, "works", lambda encoder: None if encoder.element == "x264enc" else "broken")
    found = encoder_section.find(tmp_path)
    works = {entry["element"]: entry["works"] for entry in found["encoders"]}
    assert [name for name, does in works.items() if does] == ["x264enc"]
    assert set(works) == {encoder.element for encoder in encoders.RANKED}
    assert not any("encoder" in item["what"] for item in found["missing"])
    monkeypatch.setattr(encoders, "works", lambda _: "broken")
    assert any("encoder" in item["what"] for item in encoder_section.find(tmp_path)["missing"])


def test_without_gstreamer_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*_: str) -> None:
        raise gstreamer.GStreamerMissing("no gi")

    monkeypatch.setattr(gstreamer, "load", missing)
    found = encoder_section.find(tmp_path)
    assert found["encoders"] == []
    assert found["missing"][0]["command"].startswith("sudo apt install python3-gi")


@pytest.mark.parametrize(("machine", "slow"), [("x86_64", True), ("aarch64", False)])
def test_it_says_which_runtime_is_in_use_and_that_int8_will_be_slow(
    machine: str, slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    found: list[dict[str, Any]] = [
        {"package": "ai-edge-litert", "version": None, "works": False, "problem": "not installed"},
        {"package": "tflite-runtime", "version": "2.14.0", "works": True},
    ]
    runtimes.mark_the_one_in_use(found)
    monkeypatch.setattr(probe, "SECTIONS", ())
    sections = {"cameras": [], "encoders": [], "displays": [], "runtimes": found}
    table = "\n".join(lines(probe.run(tmp_path) | sections))
    assert "works, in use" in table
    assert ("ten times slower" in table) == slow


def test_the_runtimes_problem_with_numpy_2_is_explained() -> None:
    said = "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.0\nImportError: _ARRAY_API not found"
    assert "numpy<2" in runtimes.explain(said, 1)
    assert runtimes.explain("", -11) == "crashes (signal 11)"
    assert runtimes.explain("Traceback\nValueError: no\n", 1) == "ValueError: no"


def test_an_opencv_without_what_we_need_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.delattr(cv2, "blendLinear")
    missing: list[dict[str, str]] = []
    assert runtimes._opencv(missing)["problem"] == "has no blendLinear"
    assert missing[0]["what"] == "OpenCV"


def strange(root: Path, kind: str) -> Path:
    """Machines on which something is not as it should be."""
    raspberry(root)
    drm = root / "sys/class/drm"
    if kind == "nothing":
        return root / "nowhere"
    if kind == "loops of links":
        (drm / "card2").symlink_to(drm / "card2")
        (drm / "card2-HDMI-A-1").symlink_to(drm / "card2-HDMI-A-1")
        (root / "dev/video7").symlink_to(root / "dev/video7")
    if kind == "folders for files":
        (drm / "card3-DP-1/status").mkdir(parents=True)
        (drm / "card3-DP-1/modes").mkdir()
        (root / "dev/video5").mkdir()
        (root / "sys/class/video4linux/video5/name").mkdir(parents=True)
    if kind == "bytes that are no text":
        (drm / "card1-HDMI-A-1/status").write_bytes(b"\xff\xfe\x00connected")
        (root / "etc/os-release").write_bytes(b"\xff=\n===\n")
    if kind == "a Jetson":
        write(root / "etc/nv_tegra_release", "# R36")
    if kind == "a fifo":
        os.mkfifo(root / "dev/video3")
    return root


@pytest.mark.parametrize(
    "kind", ["nothing", "loops of links", "folders for files", "bytes that are no text", "a Jetson", "a fifo"]
)
def test_it_never_crashes_on_a_strange_machine(tmp_path: Path, kind: str) -> None:
    report = probe.run(strange(tmp_path, kind))
    json.dumps(report)
    assert "\n".join(lines(report))
    assert report["problems"] == {}
    assert any(runtime["works"] for runtime in report["runtimes"])
    assert ("argus" in [camera["kind"] for camera in report["cameras"]]) == (kind == "a Jetson")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("raise SystemExit('strange')", "failed (status 1): strange"),
    ],
)
def test_what_a_driver_does_to_one_section_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, problem: str
) -> None:
    start = probe._start

    def sabotage(section: str, root: Path) -> Any:
        if section != "cameras":
            return start(section, root)
        return probe.subprocess.Popen(
            [sys.executable, "-c", code], stdout=probe.subprocess.PIPE, stderr=probe.subprocess.PIPE
        )

    monkeypatch.setattr(probe, "SECTIONS", ("displays", "cameras"))
    monkeypatch.setattr(probe, "_start", sabotage)
    if "sleep" in code:
        monkeypatch.setattr(probe, "SECTIONS", ("cameras",))
    report = probe.run(raspberry(tmp_path), timeout_s=1 if "sleep" in code else 60)
    assert report["problems"]["cameras"].startswith(problem)
    if "sleep" not in code:
        assert len(report["displays"]) == 2


def test_the_command_prints_one_json_object_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {
        "machine",
        "runtimes",
        "delegates",
        "cameras",
        "encoders",
        "displays",
        "missing",
        "problems",
    } <= set(report)
    # No driver of a test machine hangs or crashes: what stands here is a defect of ours.
    assert report["problems"] == {}
    assert cli.main(["probe"]) == 0
    table = capsys.readouterr().out
    for heading in ("CAMERAS", "ENCODERS", "DISPLAYS", "RUNTIMES"):
        assert heading in table
