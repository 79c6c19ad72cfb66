"""GStreamer, loaded once and only when something needs it, with an error that says what to install."""

from __future__ import annotations

import threading
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from edge_seg.errors import EdgeSegError
from edge_seg.types import I420, Matrix

APT_PACKAGES = "python3-gi python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0"


class GStreamerMissing(EdgeSegError):
    """GStreamer's Python binding is not installed, or the virtual environment cannot see it."""


_loading = threading.Lock()


def load(*namespaces: str) -> Any:
    """The initialised `Gst` namespace, or a tuple of (Gst, *namespaces), e.g. load("GstRtspServer", "GLib").

    From any thread. Raises GStreamerMissing.
    """
    with _loading:  # outputs open at the same time: who comes second must not find GStreamer half initialised
        return _load(*namespaces)


@cache
def _load(*namespaces: str) -> Any:
    try:
        import gi

        gi.require_version("Gst", "1.0")
        for namespace in namespaces:
            gi.require_version(namespace, "2.0" if namespace in ("GLib", "Gio") else "1.0")
        from gi.repository import Gst

        # Always: an appsink that is made before its namespace is known stays without methods in all of the process.
        gi.require_version("GstApp", "1.0")
        import_module("gi.repository.GstApp")
        modules = tuple(import_module(f"gi.repository.{namespace}") for namespace in namespaces)
    except (ImportError, ValueError) as error:
        raise GStreamerMissing(
            f"GStreamer is not usable from this Python ({error}): run `sudo apt install {APT_PACKAGES}` and make the "
            "virtual environment from /usr/bin/python3 with --system-site-packages"
        ) from error
    if not Gst.is_initialized():
        Gst.init(None)
    return (Gst, *modules) if modules else Gst


def to_buffer(picture: I420, pts_ns: int) -> Any:
    """A Gst.Buffer with the picture, time-stamped `pts_ns`: over the picture's own memory where it lies in a
    Gst.Buffer (SharedPicture), else a copy.

    Filling an allocated buffer is the cheap way: `Gst.Buffer.new_wrapped(array)` converts byte by byte.
    """
    gst = load()
    memory = getattr(picture, "memory", None)
    if memory is not None:
        buffer = memory.copy_region(gst.BufferCopyFlags.MEMORY, 0, picture.buffer.size)
    else:
        buffer = gst.Buffer.new_allocate(None, picture.buffer.size, None)
        with buffer.map(gst.MapFlags.WRITE) as mapped:
            np.copyto(np.frombuffer(mapped.data, np.uint8), picture.buffer)
    buffer.pts = pts_ns
    return buffer


def raw_caps(width: int, height: int, fps: Fraction, matrix: Matrix) -> str:
    """Caps of our pictures, as text."""
    return (
        f"video/x-raw,format=I420,width={width},height={height},framerate={fps.numerator}/{fps.denominator},"
        f"pixel-aspect-ratio=1/1,interlace-mode=progressive,colorimetry={matrix.value}"
    )
