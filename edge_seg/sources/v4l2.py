"""Cameras of the kernel's Video4Linux2."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import log2
from pathlib import Path
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import SourceLost
from edge_seg.sources.base import V4l2Settings
from edge_seg.sources.gst import LIVE_SINK, GstSource

log = logging.getLogger(__name__)

RAW_FORMATS = ("I420", "YV12", "NV12", "NV21", "YUY2", "UYVY", "YVYU")
"""Uncompressed formats, the ones nearest to I420 first."""
FORMATS = (*RAW_FORMATS, "MJPEG", "H264")
"""In order of preference: decoding costs time, and H.264 a frame of delay as well."""
_COMPRESSED = {"image/jpeg": "MJPEG", "video/x-h264": "H264"}
_BY_ID = Path("/dev/v4l/by-id")


@dataclass(frozen=True, slots=True)
class Mode:
    """One thing that a camera can deliver."""

    format: str
    """One of FORMATS."""
    width: int
    height: int
    fps: Fraction


def choose_mode(modes: Sequence[Mode], width: int, height: int, fps: float) -> Mode | None:
    """The best mode for what is wanted. In this order: the nearest size, the wanted rate or the least below
    it, the format that costs least, the rate that is least above."""

    def badness(mode: Mode) -> tuple[float, float, int, float]:
        size = abs(log2(mode.width / width)) + abs(log2(mode.height / height))
        short = max(0.0, 1 - float(mode.fps) / fps)
        # 29.97 is as good as 30.
        return size, 0.0 if short < 0.02 else short, FORMATS.index(mode.format), abs(float(mode.fps) - fps)

    usable = [mode for mode in modes if mode.format in FORMATS and mode.fps > 0]
    return min(usable, key=badness, default=None)


def pipeline_text(mode: Mode) -> str:
    """The pipeline for a mode; the device is set on the element named `camera`."""
    size = f"width={mode.width},height={mode.height},framerate={mode.fps.numerator}/{mode.fps.denominator}"
    if mode.format == "MJPEG":
        middle = f"image/jpeg,{size} ! jpegdec"
    elif mode.format == "H264":
        middle = f"video/x-h264,{size} ! h264parse ! decodebin"
    else:
        middle = f"video/x-raw,format={mode.format},{size}"
    return f"v4l2src name=camera ! {middle} ! " + LIVE_SINK


def modes_of(caps: Any, width: int, height: int, fps: float) -> list[Mode]:
    """The modes in a camera's caps (Gst.Caps). Where it offers a range, what is nearest to the wanted."""
    modes = []
    for index in range(caps.get_size()):
        structure = caps.get_structure(index)
        name = structure.get_name()
        formats = [_COMPRESSED[name]] if name in _COMPRESSED else []
        if name == "video/x-raw":
            formats = [str(value) for value in _choices(structure.get_value("format"), 0)]
        for kind in formats:
            for w in _choices(structure.get_value("width"), width):
                for h in _choices(structure.get_value("height"), height):
                    for rate in _choices(structure.get_value("framerate"), fps):
                        modes.append(Mode(kind, int(w), int(h), Fraction(rate).limit_denominator(1001)))
    return modes


class V4l2Source(GstSource):
    """A camera of the kernel."""

    def __init__(self, settings: V4l2Settings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(clock)
        self.name = settings.device
        self._settings = settings

    def _build(self) -> Any:
        gst = gstreamer.load()
        wanted = self._settings
        check_device(Path(wanted.device))
        modes = self.modes()
        mode = choose_mode(modes, wanted.width, wanted.height, wanted.fps)
        if mode is None:
            raise SourceLost(f"{self.name}: offers no format that can be used; is it a camera?")
        log.info("%s: %s %dx%d at %.4g fps", self.name, mode.format, mode.width, mode.height, mode.fps)
        pipeline = gst.parse_launch(pipeline_text(mode))
        pipeline.get_by_name("camera").set_property("device", wanted.device)
        return pipeline

    def modes(self) -> list[Mode]:
        """What the camera offers; it is opened for the question."""
        gst = gstreamer.load()
        camera = gst.ElementFactory.make("v4l2src")
        if camera is None:
            raise SourceLost("v4l2src is missing; run `sudo apt install gstreamer1.0-plugins-good`")
        camera.set_property("device", self._settings.device)
        bus = gst.Bus.new()
        camera.set_bus(bus)
        try:
            if camera.set_state(gst.State.READY) == gst.StateChangeReturn.FAILURE:
                message = bus.pop_filtered(gst.MessageType.ERROR)
                if message is None:
                    raise SourceLost(f"{self.name}: cannot be opened")
                raise self._failed(*message.parse_error())
            wanted = self._settings
            caps = camera.get_static_pad("src").query_caps(None)
            return modes_of(caps, wanted.width, wanted.height, wanted.fps)
        finally:
            camera.set_state(gst.State.NULL)

    def _failed(self, error: Any, debug: str) -> Exception:
        if "busy" in f"{error.message} {debug}".lower():
            return SourceLost(f"{self.name}: is in use by another program; `fuser -v {self.name}` says which")
        return SourceLost(f"{self.name}: {error.message}")


def check_device(path: Path, by_id: Path = _BY_ID) -> None:
    """Raises SourceLost where the file system already says why the camera cannot be opened."""
    if not path.exists():
        found = sorted(str(entry) for entry in by_id.iterdir()) if by_id.is_dir() else []
        seen = f"cameras here: {', '.join(found)}" if found else "no camera is plugged in"
        raise SourceLost(f"{path}: no such device; {seen}")
    if not path.is_char_device():
        raise SourceLost(f"{path}: is not a camera; video files are sources of type file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise SourceLost(f"{path}: no permission; run `sudo usermod -aG video $USER` and log in again")


def _choices(value: Any, wanted: float) -> Iterable[Any]:
    """The values that a field of caps allows: one, a list, or a range (then the nearest to `wanted`)."""
    if value is None:
        return []
    if hasattr(value, "start") and hasattr(value, "stop"):
        low, high = (_fraction(end) for end in (value.start, value.stop))
        return [min(max(Fraction(wanted), low), high)]
    if hasattr(value, "range"):
        steps = value.range  # its end is included, unlike that of Python's own
        clipped = min(max(int(wanted), steps.start), steps.stop)
        return [clipped - (clipped - steps.start) % steps.step]
    if isinstance(value, str | int):
        return [value]
    if hasattr(value, "num"):
        return [_fraction(value)]
    return [choice for item in value for choice in _choices(item, wanted)]


def _fraction(value: Any) -> Fraction:
    return Fraction(int(value.num), int(value.denom))  # gst-python hands out whole floats, too
