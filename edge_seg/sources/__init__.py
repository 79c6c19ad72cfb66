"""Where frames come from: files, cameras, and a drawn person for tests."""

from __future__ import annotations

from edge_seg.sources.base import (
    FileSettings,
    Source,
    SourceFormat,
    SourceSettings,
    SyntheticSettings,
    V4l2Settings,
)

__all__ = [
    "FileSettings",
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


def make_source(settings: SourceSettings) -> Source:
    """A source for these settings, not yet open."""
    if isinstance(settings, SyntheticSettings):
        from edge_seg.sources.synthetic import SyntheticSource

        return SyntheticSource(settings)
    if isinstance(settings, FileSettings):
        from edge_seg.sources.file import FileSource

        return FileSource(settings)
    from edge_seg.sources.v4l2 import V4l2Source

    return V4l2Source(settings)
