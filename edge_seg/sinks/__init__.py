"""Where the composited pictures go."""

from typing import TypeAlias

from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sinks.file import FileOutputSettings, FileSink
from edge_seg.sinks.hdmi import HdmiSettings, HdmiSink
from edge_seg.sinks.push import PushSettings, PushSink
from edge_seg.sinks.rtsp import RtspSettings, RtspSink
from edge_seg.sinks.v4l2 import V4l2OutputSettings, V4l2Sink

__all__ = [
    "FileOutputSettings",
    "HdmiSettings",
    "OutputFormat",
    "OutputSettings",
    "PushSettings",
    "RtspSettings",
    "Sink",
    "V4l2OutputSettings",
    "open_sink",
]

OutputSettings: TypeAlias = (
    RtspSettings | HdmiSettings | V4l2OutputSettings | FileOutputSettings | PushSettings
)
"""The settings of any output: a union of one dataclass a kind, told apart by `type`."""


def open_sink(settings: OutputSettings) -> Sink:
    """The output that the settings describe, not yet open."""
    match settings:
        case FileOutputSettings():
            return FileSink(settings)
        case HdmiSettings():
            return HdmiSink(settings)
        case PushSettings():
            return PushSink(settings)
        case RtspSettings():
            return RtspSink(settings)
        case V4l2OutputSettings():
            return V4l2Sink(settings)
