"""What of libcamera's Python bindings picamera2 users see."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace


@dataclass
class Transform:
    hflip: bool = False
    vflip: bool = False


class YcbcrEncoding(Enum):
    Null = 0
    Rec601 = 1
    Rec709 = 2


class Range(Enum):
    Full = 0
    Limited = 1


@dataclass(frozen=True)
class ColorSpace:
    ycbcrEncoding: YcbcrEncoding  # noqa: N815 (libcamera's name)
    range: Range

    @staticmethod
    def Rec709() -> ColorSpace:  # noqa: N802
        return ColorSpace(YcbcrEncoding.Rec709, Range.Limited)

    @staticmethod
    def Smpte170m() -> ColorSpace:  # noqa: N802
        return ColorSpace(YcbcrEncoding.Rec601, Range.Limited)

    @staticmethod
    def Sycc() -> ColorSpace:  # noqa: N802
        return ColorSpace(YcbcrEncoding.Rec601, Range.Full)


class AwbModeEnum(Enum):
    Auto = 0
    Tungsten = 2
    Fluorescent = 3
    Indoor = 4
    Daylight = 5
    Cloudy = 6


class AfModeEnum(Enum):
    Manual = 0
    Auto = 1
    Continuous = 2


controls = SimpleNamespace(AwbModeEnum=AwbModeEnum, AfModeEnum=AfModeEnum)
