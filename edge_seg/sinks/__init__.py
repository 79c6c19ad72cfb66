"""Where the composited pictures go."""

from typing import TypeAlias

from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sinks.rtsp import RtspSettings, RtspSink

__all__ = ["OutputFormat", "OutputSettings", "RtspSettings", "Sink", "open_sink"]

OutputSettings: TypeAlias = RtspSettings
"""The settings of any output: a union of one dataclass a kind, told apart by `type`."""


def open_sink(settings: OutputSettings) -> Sink:
    """The output that the settings describe, not yet open."""
    return RtspSink(settings)
