"""The monitor's output, with a folder for sysfs and another element for kmssink. The real one is in tests/vm."""

import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_seg import gstreamer
from edge_seg.errors import SinkError
from edge_seg.sinks import HdmiSettings, kms
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.hdmi import HdmiSink, choose_connector, choose_mode
from edge_seg.sinks.kms import Connector
from edge_seg.types import I420, Matrix

WIDE = OutputFormat(1280, 720, Fraction(30), Matrix.BT709)
AUTO = HdmiSettings()
FULL_HD = ((1920, 1080), (1280, 720), (640, 480))


def monitor(name: str = "HDMI-A-1", status: str = "connected", modes: Any = FULL_HD) -> Connector:
    return Connector("card1", name, status, False, modes, "vc4-drm")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A board with two connectors, of which the second has a monitor."""
    drm = tmp_path / "sys/class/drm"
    for name, status, modes in (
        ("card1-HDMI-A-1", "disconnected", ""),
        ("card1-HDMI-A-2", "connected", "1920x1080\n1920x1080i\n1920x1080\n1280x720\n"),
    ):
        (drm / name).mkdir(parents=True)
        (drm / name / "status").write_text(status + "\n")
        (drm / name / "modes").write_text(modes)
        (drm / name / "enabled").write_text("disabled\n")
    (drm / "version").write_text("drm 1.1.0\n")
    return tmp_path


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The ioctls of a card, which only the kernel can answer."""
    state: dict[str, Any] = {"owner": True, "refuses": None, "asked": []}

    def opened(connector: Connector, root: Path) -> int:
        if state["refuses"] is not None:
            raise state["refuses"]
        (tmp_path / "node").touch()
        return os.open(tmp_path / "node", os.O_RDONLY)

    def identify(descriptor: int, name: str) -> int:
        state["asked"].append(name)
        return 77

    monkeypatch.setattr(kms, "open_card", opened)
    monkeypatch.setattr(kms, "owns_display", lambda descriptor: state["owner"])
    monkeypatch.setattr(kms, "connector_id", identify)
    return state


def test_connectors_come_from_sysfs_each_size_once_without_interlaced_ones(root: Path) -> None:
    first, second = kms.connectors(root)
    assert (first.name, first.is_connected, first.modes) == ("HDMI-A-1", False, ())
    assert (second.name, second.is_connected, second.modes) == (
        "HDMI-A-2",
        True,
        ((1920, 1080), (1280, 720)),
    )


def test_the_first_connector_with_a_monitor_is_taken_or_the_one_that_is_named(root: Path) -> None:
    found = kms.connectors(root)
    assert choose_connector(found, "auto").name == "HDMI-A-2"
    assert choose_connector([monitor("A"), monitor("B")], "B").name == "B"


@pytest.mark.parametrize(
    ("found", "wanted", "says", "is_permanent"),
    [
        ([], "auto", "no display connectors", False),
        ([monitor(status="disconnected")], "auto", "no monitor is plugged in to HDMI-A-1", False),
        ([monitor(status="disconnected"), monitor("DP-1")], "HDMI-A-1", "plugged in to HDMI-A-1", False),
        ([monitor()], "HDMI-A-2", "no connector HDMI-A-2: this board has HDMI-A-1", True),
    ],
)
def test_without_a_monitor_it_says_so_and_only_a_wrong_name_is_final(
    found: list[Connector], wanted: str, says: str, is_permanent: bool
) -> None:
    with pytest.raises(SinkError, match=says) as caught:
        choose_connector(found, wanted)
    assert caught.value.permanent is is_permanent


def test_a_panel_that_cannot_say_whether_it_is_there_counts_when_it_has_modes() -> None:
    assert monitor("DSI-1", "unknown", ((800, 480),)).is_connected
    assert not monitor("TV-1", "unknown", ()).is_connected


@pytest.mark.parametrize(
    ("modes", "wanted", "size", "mode"),
    [
        (FULL_HD, "auto", (1280, 720), (1280, 720)),
        (FULL_HD, "auto", (854, 480), (1920, 1080)),
        (FULL_HD, "640x480", (1280, 720), (640, 480)),
        ((), "auto", (1280, 720), (1280, 720)),
    ],
)
def test_the_mode_is_the_pictures_size_where_there_is_one_else_the_preferred(
    modes: Any, wanted: str, size: tuple[int, int], mode: tuple[int, int]
) -> None:
    assert choose_mode(monitor(modes=modes), wanted, *size) == mode


def test_a_mode_that_the_monitor_has_not_is_an_error_that_names_those_it_has() -> None:
    with pytest.raises(SinkError, match="no mode 800x600: it has 1920x1080, 1280x720, 640x480"):
        choose_mode(monitor(), "800x600", 1280, 720)


def test_a_display_that_another_program_holds_is_named(root: Path, card: dict[str, Any]) -> None:
    card["owner"] = False
    with pytest.raises(SinkError, match="another program shows its picture on card1") as caught:
        HdmiSink(HdmiSettings(), root).open(WIDE)
    assert not caught.value.permanent  # a boot splash goes away by itself
    card["owner"], card["refuses"] = True, PermissionError(13, "Permission denied")
    with pytest.raises(SinkError, match=r"/dev/dri/card1 may not be opened: .*usermod -aG video") as caught:
        HdmiSink(HdmiSettings(), root).open(WIDE)
    assert caught.value.permanent


def test_settings_reach_kmssink(root: Path) -> None:
    text = HdmiSink(HdmiSettings(driver_name="vc4", force_modesetting=False), root)._text()
    assert text.startswith("kmssink ")
    assert 'driver-name="vc4"' in text
    assert "force-modesetting=false" in text
    pipeline = gstreamer.load().parse_launch(text)
    assert pipeline.get_property("driver-name") == "vc4"
    assert pipeline.get_property("sync") is False


class Screen:
    """What reached the element in the place of kmssink."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, settings: HdmiSettings = AUTO) -> None:
        self.now_ns = 0
        self.sink = HdmiSink(settings, root, lambda: self.now_ns, "appsink caps=video/x-raw,format=BGRx")
        # An appsink has neither connector nor card.
        monkeypatch.setattr(self.sink, "_take_card", lambda connector: None)

    def shown(self, picture: I420) -> Any:
        """(H, W, 4), uint8, BGRx."""
        self.sink.push(picture, time.monotonic_ns())
        gst = gstreamer.load()
        sample = self.sink._pipeline.get_by_name("display").emit("try-pull-sample", 5 * gst.SECOND)
        assert sample is not None
        caps = sample.get_caps().get_structure(0)
        with sample.get_buffer().map(gst.MapFlags.READ) as mapped:
            return np.frombuffer(mapped.data, np.uint8).reshape(caps["height"], caps["width"], 4).copy()


def flat(width: int, height: int, colour: tuple[int, int, int]) -> I420:
    picture = I420.allocate(width, height, Matrix.BT709)
    for plane, value in zip(picture.planes, colour, strict=True):
        plane[:] = value
    return picture


def test_a_picture_of_another_shape_is_fitted_between_black_bars(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(root, monkeypatch, HdmiSettings(mode="1280x720"))
    screen.sink.open(OutputFormat(640, 480, Fraction(30), Matrix.BT709))
    try:
        shown = screen.shown(flat(640, 480, (235, 128, 128)))
        assert shown.shape == (720, 1280, 4)
        assert (shown[:, :150, :3] < 4).all()
        assert (shown[:, -150:, :3] < 4).all()
        assert (shown[10:-10, 180:-180, :3] > 250).all()
        screen.sink.reformat(OutputFormat(320, 180, Fraction(30), Matrix.BT709))
        shown = screen.shown(flat(320, 180, (63, 102, 240)))  # red, of BT.709
        assert shown.shape == (720, 1280, 4)
        assert np.abs(shown[:, :, :3].astype(int) - (0, 0, 255)).max() < 4
    finally:
        screen.sink.close()
        screen.sink.close()


def test_a_monitor_that_is_unplugged_is_noticed_at_the_next_look(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(root, monkeypatch)
    screen.sink.open(WIDE)
    picture = flat(1280, 720, (100, 128, 128))
    try:
        (root / "sys/class/drm/card1-HDMI-A-2/status").write_text("disconnected\n")
        screen.sink.push(picture, 0)
        screen.now_ns = 600_000_000
        with pytest.raises(SinkError, match="unplugged from HDMI-A-2"):
            screen.sink.push(picture, 0)
    finally:
        screen.sink.close()
    with pytest.raises(SinkError, match="no monitor is plugged in to HDMI-A-1 or HDMI-A-2"):
        HdmiSink(HdmiSettings(), root).open(WIDE)


def test_an_element_that_takes_no_open_card_opens_it_itself(root: Path, card: dict[str, Any]) -> None:
    """As kmssink before GStreamer 1.22. Who opens a card first owns it, so ours has to be closed by then."""

    class Sink(HdmiSink):
        def _take_card(self, connector: Connector) -> None:
            super()._take_card(connector)
            descriptors.append(self._card)

    descriptors: list[Any] = []
    sink = Sink(HdmiSettings(), root, element="appsink caps=video/x-raw,format=BGRx")
    sink.open(WIDE)
    try:
        here = Path("/proc/self/fd") / str(descriptors[0])  # the number may be something else's by now
        assert not here.exists() or here.resolve().name != "node"
    finally:
        sink.close()


def test_without_a_card_kmssink_says_what_is_wrong(root: Path, card: dict[str, Any]) -> None:
    sink = HdmiSink(HdmiSettings(bus_id="pci:0000:ff:1f.7"), root)
    try:
        with pytest.raises(SinkError, match="the display: "):
            sink.open(WIDE)
    finally:
        sink.close()
    assert card["asked"] == ["HDMI-A-2"]


def test_an_element_that_is_not_installed_names_the_package(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = HdmiSink(HdmiSettings(), root, element="nosuchsink")
    monkeypatch.setattr(sink, "_take_card", lambda connector: None)
    with pytest.raises(SinkError, match=r"apt install .*gstreamer1.0-plugins-bad") as caught:
        sink.open(WIDE)
    assert caught.value.permanent
