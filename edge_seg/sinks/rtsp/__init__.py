"""The RTSP server in this process: one encoder for all viewers, and none while nobody watches."""

from edge_seg.sinks.rtsp.settings import MulticastSettings, RtspSettings, RtspUser, TlsSettings
from edge_seg.sinks.rtsp.sink import RtspSink

__all__ = ["MulticastSettings", "RtspSettings", "RtspSink", "RtspUser", "TlsSettings"]
