"""What outputs have in common that encode pictures and hand them to GStreamer elements: files and servers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edge_seg import encoders, gstreamer
from edge_seg.encoders import Encoder, Encoding
from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources.bounded import bounded
from edge_seg.types import I420

log = logging.getLogger(__name__)

WAITING = 4
"""Pictures that may wait for the encoder. More only when what is behind it does not get rid of them."""
STALL_S = 4.0
"""For so long it may take none; then it is broken."""
LOOK_NS = 10_000_000
END_S = 0.7
"""To bring to an end what was begun."""
LET_GO_S = 0.3


class EncodedSink(Sink):
    """appsrc, an encoder, its parser, and what a subclass puts behind them."""

    def __init__(self, settings: Encoding, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._settings = settings
        self._clock = clock
        self._encoder: Encoder | None = None
        self._pipeline: Any = None
        self._source: Any = None
        self._bus: Any = None
        self._is_broken = False
        self._last_pts_ns = -1

    @property
    def encoder(self) -> str | None:
        return self._encoder.element if self._encoder is not None and self._pipeline is not None else None

    def open(self, output: OutputFormat) -> None:
        gst, glib, _ = gstreamer.load("GLib", "GstApp")
        settings = self._settings
        self._encoder = encoder = encoders.choose(
            wanted=settings.encoder, codec=settings.codec, size=(output.width, output.height)
        )
        caps = gstreamer.raw_caps(output.width, output.height, output.fps, output.matrix)
        text = (
            "appsrc name=source is-live=true format=time max-bytes=0 max-time=0 max-buffers=0 "
            f"caps={caps} ! {encoder.launch(settings.for_format(output))} ! {self._behind(encoder)}"
        )
        try:
            self._pipeline = pipeline = gst.parse_launch(text)
        except glib.Error as error:
            raise SinkError(f"{self.name}: {error.message}", permanent=True) from error
        self._is_broken, self._last_pts_ns = False, -1
        self._source, self._bus = pipeline.get_by_name("source"), pipeline.get_bus()
        # Its clock is CLOCK_MONOTONIC: the capture time of a picture is its time stamp.
        pipeline.use_clock(gst.SystemClock.obtain())
        self._prepare(pipeline)
        if not bounded(lambda: pipeline.set_state(gst.State.PLAYING), STALL_S):
            self._is_broken = True
            raise SinkError(f"{self._where()}: hangs while it is opened")
        self._look()

    def reformat(self, output: OutputFormat) -> None:
        """Begins anew: neither a file nor a server takes pictures of another size half way."""
        self.close()
        self.open(output)

    def push(self, picture: I420, captured_ns: int) -> None:
        if self._pipeline is None:
            raise SinkError(f"{self._where()}: is not open")
        self._look()
        deadline_ns = self._clock() + round(STALL_S * 1e9)
        while self._source.get_property("current-level-buffers") >= WAITING:
            if self._clock() > deadline_ns:
                self._is_broken = True
                raise SinkError(f"{self._where()}: has taken no picture for {STALL_S:g} s")
            self._look(LOOK_NS)
        base_ns = self._pipeline.get_base_time()
        pts_ns = captured_ns - base_ns
        if base_ns == 0 or pts_ns <= self._last_pts_ns:
            return  # captured before the opening, or a second picture of the same moment
        self._last_pts_ns = pts_ns
        self._source.emit("push-buffer", gstreamer.to_buffer(picture, pts_ns))

    def close(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        gst = gstreamer.load()
        if not self._is_broken:
            self._source.emit("end-of-stream")
            self._bus.timed_pop_filtered(int(END_S * gst.SECOND), gst.MessageType.EOS | gst.MessageType.ERROR)
        self._source = self._bus = None
        if not bounded(lambda: pipeline.set_state(gst.State.NULL), LET_GO_S):
            log.warning("%s: does not end; it is left behind", self._where())
        self._closed()

    def adjust(self, settings: Any) -> bool:
        """Another bit rate while it runs, where the encoder can."""
        if type(settings) is not type(self._settings) or self._encoder is None or self._pipeline is None:
            return False
        if (
            not settings.bitrate_kbps
            or replace(self._settings, bitrate_kbps=settings.bitrate_kbps) != settings
        ):
            return False
        if not self._encoder.set_bitrate(self._pipeline.get_by_name("encoder"), settings.bitrate_kbps):
            return False
        self._settings = settings
        return True

    def _behind(self, encoder: Encoder) -> str:
        """Launch text from the encoder on."""
        raise NotImplementedError

    def _prepare(self, pipeline: Any) -> None:
        """Sets what does not belong into a launch text: secrets, odd names. Raises SinkError."""

    def _where(self) -> str:
        """For logs: which output this is."""
        return self.name

    def _explain(self, error: Any, debug: str) -> str:
        """What an error of GStreamer (a GLib.Error) means to the user, without a secret."""
        return str(error.message).rstrip(".")

    def _closed(self) -> None:
        """After the last buffer has gone."""

    def _look(self, wait_ns: int = 0) -> None:
        """Raises what has gone wrong meanwhile."""
        gst = gstreamer.load()
        message = self._bus.timed_pop_filtered(wait_ns, gst.MessageType.ERROR)
        if message is None:
            return
        self._is_broken = True
        error, debug = message.parse_error()
        if message.src.get_name() == "encoder" and self._encoder is not None:
            encoders.report_failure(self._encoder, str(error.message))
        raise SinkError(f"{self._where()}: {self._explain(error, debug or '')}")
