"""Where frames come from: cameras, the network, files, and a drawn person for tests."""

from __future__ import annotations

from edge_seg.geometry import WHOLE, Geometry
from edge_seg.sources.base import (
    ArgusSettings,
    AutoSettings,
    CsiSettings,
    FileSettings,
    GstSettings,
    PlacingSource,
    RtspSourceSettings,
    Source,
    SourceFormat,
    SourceSettings,
    SyntheticSettings,
    V4l2Settings,
)

__all__ = [
    "ArgusSettings",
    "AutoSettings",
    "CsiSettings",
    "FileSettings",
    "GstSettings",
    "RtspSourceSettings",
    "Source",
    "SourceFormat",
    "SourceSettings",
    "SyntheticSettings",
    "V4l2Settings",
    "make_source",
    "open_source",
]


def open_source(settings: SourceSettings) -> Source:
    """An open source for these settings. Raises ConfigError or SourceLost."""
    source = make_source(settings)
    source.open()
    return source


def make_source(settings: SourceSettings, geometry: Geometry = WHOLE) -> Source:
    """A source for these settings, not yet open, whose pictures are cropped, turned and mirrored as `geometry` says."""
    if isinstance(settings, AutoSettings):
        from edge_seg.sources.auto import AutoSource

        return AutoSource(settings, lambda found: make_source(found, geometry))
    source = _make(settings)
    source.geometry = geometry
    return source


def _make(settings: SourceSettings) -> PlacingSource:
    """Only what it needs is imported."""
    match settings:
        case SyntheticSettings():
            from edge_seg.sources.synthetic import SyntheticSource

            return SyntheticSource(settings)
        case FileSettings():
            from edge_seg.sources.file import FileSource

            return FileSource(settings)
        case V4l2Settings():
            from edge_seg.sources.v4l2 import V4l2Source

            return V4l2Source(settings)
        case RtspSourceSettings():
            from edge_seg.sources.rtsp import RtspSource

            return RtspSource(settings)
        case GstSettings():
            from edge_seg.sources.launch import LaunchSource

            return LaunchSource(settings)
        case CsiSettings():
            from edge_seg.sources.csi import CsiSource

            return CsiSource(settings)
        case ArgusSettings():
            from edge_seg.sources.argus import ArgusSource

            return ArgusSource(settings)
        case AutoSettings():
            raise TypeError("auto is no camera itself")
