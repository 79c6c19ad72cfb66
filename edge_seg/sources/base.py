"""What a camera, a file or a drawn picture is to the engine, and what the configuration can say of it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal, Protocol

from annotated_types import Ge, Interval, MinLen

from edge_seg.types import Frame, Matrix

Side = Annotated[int, Interval(ge=16, le=4096)]
Rate = Annotated[float, Interval(gt=0, le=240)]
StaleMs = Annotated[int, Interval(ge=100, le=60_000)]


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


SourceSettings = FileSettings | V4l2Settings | SyntheticSettings
