"""Where the composited pictures go."""

from edge_seg.sinks.base import Sink
from edge_seg.sinks.rtsp import RtspSettings, RtspSink


def open_sink(settings: RtspSettings) -> Sink:
    """The output that the settings describe, not yet open."""
    return RtspSink(settings)
