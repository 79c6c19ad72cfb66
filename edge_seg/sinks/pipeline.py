"""What outputs have in common that are a GStreamer pipeline from an appsrc to an element that shows pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources.bounded import bounded
from edge_seg.types import I420

START_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0
SOURCE = (
    "appsrc name=source is-live=true format=time block=false max-buffers=2 max-bytes=0 max-time=0 "
    "leaky-type=downstream ! "
)
FIT = "videoscale n-threads=1 add-borders=true ! capsfilter name=size ! videoconvert n-threads=1 ! "
"""Into the size of the capsfilter, with black borders where the shapes differ; into a format that the next element
takes. Both hand on untouched what fits."""


class PipelineSink(Sink):
    """Subclasses say what the pipeline is and what its errors mean."""

    def __init__(self) -> None:
        self._pipeline: Any = None
        self._source: Any = None
        self._bus: Any = None
        self._began_ns = 0

    def reformat(self, output: OutputFormat) -> None:
        self._source.set_caps(_caps(output))

    def push(self, picture: I420, captured_ns: int) -> None:
        self._check()
        if self._source is None:
            raise SinkError(f"{self.name} is closed")
        # Elements that show at once (sync=false) need increasing time stamps, not the time itself.
        self._source.push_buffer(gstreamer.to_buffer(picture, max(0, captured_ns - self._began_ns)))

    def close(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        self._source = self._bus = None
        if pipeline is None:
            return
        gst = gstreamer.load()
        if not bounded(lambda: pipeline.set_state(gst.State.NULL), CLOSE_TIMEOUT_S):
            raise SinkError(f"{self.name}: the driver does not let go; it is left behind")

    def _failed(self, message: str, debug: str) -> SinkError:
        """What an error of GStreamer means to the user."""
        return SinkError(f"{self.name}: {message}")

    def _play(self, launch: str, output: OutputFormat, prepare: Callable[[Any], None] | None = None) -> None:
        """Starts `appsrc ! launch` for pictures of this format. Raises SinkError."""
        gst, glib, _ = gstreamer.load("GLib", "GstApp")
        try:
            pipeline = gst.parse_launch(SOURCE + launch)
        except glib.Error as error:
            raise SinkError(
                f"{self.name}: {error.message}; run `sudo apt install gstreamer1.0-plugins-good "
                "gstreamer1.0-plugins-bad`",
                permanent=True,
            ) from error
        self._pipeline, self._source, self._bus = pipeline, pipeline.get_by_name("source"), pipeline.get_bus()
        self._source.set_caps(_caps(output))
        if prepare is not None:
            prepare(pipeline)
        self._began_ns = time.monotonic_ns()
        results: list[Any] = []
        if not bounded(lambda: results.append(pipeline.set_state(gst.State.PLAYING)), START_TIMEOUT_S):
            raise SinkError(f"{self.name}: the driver hangs while it is opened")
        if results[0] == gst.StateChangeReturn.FAILURE:
            self._check()
            raise SinkError(f"{self.name}: cannot be started, and GStreamer does not say why")

    def _check(self) -> None:
        """Raises what went wrong since the last look."""
        if self._bus is None:
            return
        message = self._bus.pop_filtered(gstreamer.load().MessageType.ERROR)
        if message is not None:
            error, debug = message.parse_error()
            raise self._failed(error.message, debug or "")


def size_caps(width: int, height: int) -> Any:
    """For the capsfilter of FIT (a Gst.Caps)."""
    return gstreamer.load().Caps.from_string(
        f"video/x-raw,width={width},height={height},pixel-aspect-ratio=1/1"
    )


def _caps(output: OutputFormat) -> Any:
    return gstreamer.load().Caps.from_string(
        gstreamer.raw_caps(output.width, output.height, output.fps, output.matrix)
    )
