"""Where the composited pictures go."""

from typing import TypeAlias

from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sinks.file import FileOutputSettings, FileSink
from edge_seg.sinks.push import PushSettings, PushSink
from edge_seg.sinks.rtsp import RtspSettings, RtspSink

__all__ = [
    "FileOutputSettings",
    "OutputFormat",
    "OutputSettings",
    "PushSettings",
    "RtspSettings",
    "Sink",
    "open_sink",
]

OutputSettings: TypeAlias = RtspSettings | FileOutputSettings | PushSettings
"""The settings of any output: a union of one dataclass a kind, told apart by `type`."""


def open_sink(settings: OutputSettings) -> Sink:
    """The output that the settings describe, not yet open."""
    match settings:
        case FileOutputSettings():
            return FileSink(settings)
        case PushSettings():
            return PushSink(settings)
        case RtspSettings():
            return RtspSink(settings)
