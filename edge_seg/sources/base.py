"""What a camera, a file or a drawn picture is to the engine, and what the configuration can say of it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal, Protocol
from urllib.parse import urlsplit

from annotated_types import Ge, Interval, Len, MinLen
from pydantic import AfterValidator

from edge_seg.geometry import Geometry
from edge_seg.types import Frame, Matrix

Side = Annotated[int, Interval(ge=16, le=4096)]
Rate = Annotated[float, Interval(gt=0, le=240)]
StaleMs = Annotated[int, Interval(ge=100, le=60_000)]


Repeats = Literal["lost", "shown"]
"""What a picture that comes again and again, bit for bit, for stale_ms, is taken for: a stuck driver, or a picture
that is to be shown."""


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """What the frames of an open source look like."""

    width: int
    height: int
    fps: Fraction
    """Nominal; zero where the source has no fixed rate."""
    matrix: Matrix


class Source(Protocol):
    """Delivers frames. One thread reads; another may close it meanwhile."""

    name: str
    live: bool
    """Frames come when the world makes them: one not fetched in time is lost."""

    @property
    def format(self) -> SourceFormat:
        """Valid after `open`. May change between two reads when the source switches size or rate."""

    def open(self) -> None:
        """Starts delivery. Raises ConfigError (the settings name something unusable) or SourceLost."""

    def read(self, timeout_ns: int) -> Frame | None:
        """The next frame, or None when none came within the time-out. Raises SourceLost at the end."""

    def close(self) -> None:
        """Ends delivery within a second, also when the driver hangs. May be called twice."""


class PlacingSource(Source, Protocol):
    """Crops, turns and mirrors its pictures within the copy that it makes of them."""

    geometry: Geometry
    """To be set before `open`; `format` is what comes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """A video file, played at its own frame rate."""

    type: Literal["file"] = "file"
    path: Annotated[str, MinLen(1)]
    loop: bool = False
    """Start again at the end, without a gap."""
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class V4l2Settings:
    """A camera of the kernel's Video4Linux2, USB webcams above all."""

    type: Literal["v4l2"] = "v4l2"
    device: Annotated[str, MinLen(1)] = "/dev/video0"
    """Names below /dev/v4l/by-id/ stay the same when cameras are plugged in another order."""
    width: Side = 1280
    height: Side = 720
    fps: Rate = 30.0
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""
    repeats: Repeats = "lost"
    """A sensor's noise never repeats; a capture card with a still screen before it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsiSettings:
    """A camera on a Raspberry Pi's CSI connector, by libcamera (picamera2)."""

    type: Literal["csi"] = "csi"
    camera: Annotated[int, Interval(ge=0, le=15)] = 0
    """Its number in `rpicam-hello --list-cameras`."""
    width: Side = 1280
    height: Side = 720
    fps: Rate = 30.0
    lores: bool = True
    """Let the camera's ISP make the small picture for model and flow, too."""
    exposure_us: Annotated[int, Interval(ge=1, le=10_000_000)] | None = None
    """None: automatic."""
    gain: Annotated[float, Interval(ge=1, le=64)] | None = None
    """Of the sensor's amplifier. None: automatic."""
    awb: Literal["auto", "tungsten", "fluorescent", "indoor", "daylight", "cloudy"] = "auto"
    focus: Literal["default", "continuous", "manual"] = "default"
    """default: what the camera does by itself; the others need a lens that moves."""
    lens_dioptres: Annotated[float, Interval(ge=0, le=32)] = 0.0
    """With manual focus: 1 / distance in metres; 0 is infinity."""
    hflip: bool = False
    vflip: bool = False
    tuning_file: Annotated[str, MinLen(1)] | None = None
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""
    repeats: Repeats = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgusSettings:
    """A camera on a Jetson's CSI connector, by nvarguscamerasrc."""

    type: Literal["argus"] = "argus"
    camera: Annotated[int, Interval(ge=0, le=15)] = 0
    mode: Annotated[int, Interval(ge=-1, le=63)] = -1
    """Of the sensor; -1 takes the one that fits width, height and fps best."""
    width: Side = 1280
    height: Side = 720
    fps: Rate = 30.0
    flip: Literal["none", "180", "horizontal", "vertical"] = "none"
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""
    repeats: Repeats = "lost"


def _stream_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("rtsp", "rtsps"):
        raise ValueError("a URL such as rtsp://camera.local:554/stream")
    if not parts.hostname:
        raise ValueError("a URL with a host, such as rtsp://camera.local:554/stream")
    if "@" in parts.netloc:
        raise ValueError("a URL without user and password; `user` and `password_file` are keys of their own")
    return url


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspSourceSettings:
    """A network camera, or any other RTSP server."""

    type: Literal["rtsp"] = "rtsp"
    url: Annotated[str, AfterValidator(_stream_url)]
    transport: Literal["tcp", "udp"] = "tcp"
    """tcp: nothing is lost, through every firewall. udp: a little earlier where the network is good."""
    latency_ms: Annotated[int, Interval(ge=0, le=5000)] = 50
    """How long packets that came too early or in disorder wait for the others."""
    user: Annotated[str, Len(0, 255)] = ""
    password_file: Annotated[str, MinLen(1)] | None = None
    """The password is the first line of this file."""
    password_env: Annotated[str, MinLen(1)] | None = None
    """The password is the value of this environment variable."""
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""
    repeats: Repeats = "shown"
    """A camera that compresses a still scene strongly sends the same picture for seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GstSettings:
    """Any beginning of a GStreamer pipeline, for what there is no other type for."""

    type: Literal["gst"] = "gst"
    launch: Annotated[str, MinLen(1)]
    """As for gst-launch-1.0, up to where raw video comes out."""
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""
    repeats: Repeats = "shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoSettings:
    """The first camera that works."""

    type: Literal["auto"] = "auto"
    width: Side = 1280
    height: Side = 720
    fps: Rate = 30.0
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""
    repeats: Repeats = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticSettings:
    """A drawn person who moves in front of a drawn room, with an exactly known mask."""

    type: Literal["synthetic"] = "synthetic"
    width: Annotated[int, Interval(ge=64, le=4096)] = 1280
    height: Annotated[int, Interval(ge=64, le=4096)] = 720
    fps: Rate = 30.0
    motion: Literal["still", "sway", "walk", "enter_leave", "wave", "pan"] = "sway"
    noise: Annotated[float, Interval(ge=0, le=30)] = 2.0
    """Standard deviation of the sensor noise in luma, in 8-bit code values."""
    cut_every: Annotated[int, Ge(0)] = 0
    """Switch to another person and room every so many frames; 0 is never."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    realtime: bool = True
    """Deliver frames at `fps` by the clock. Otherwise as fast as they are asked for, with the time stamps
    that the rate gives."""
    stale_ms: StaleMs = 2000
    """Taken for lost, and opened again, when it delivers no frame for so long."""


SourceSettings = (
    AutoSettings
    | CsiSettings
    | V4l2Settings
    | ArgusSettings
    | RtspSourceSettings
    | GstSettings
    | FileSettings
    | SyntheticSettings
)
