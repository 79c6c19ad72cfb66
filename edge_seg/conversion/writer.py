"""Encodes pictures into an MP4, MOV or Matroska file, together with the sound of the recording they come from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from edge_seg import encoders, gstreamer
from edge_seg.conversion import encoding, sound
from edge_seg.errors import EdgeSegError
from edge_seg.sinks.base import OutputFormat
from edge_seg.types import I420

log = logging.getLogger(__name__)

MUXERS = {
    ".mp4": "mp4mux movie-timescale=90000",
    ".m4v": "mp4mux movie-timescale=90000",
    ".mov": "qtmux movie-timescale=90000",
    ".mkv": "matroskamux",
}
"""By the ending of a file's name. The muxers' own clock of 1/1800 s would round where a track begins."""

QUEUED = 8
"""Pictures that may wait for the encoder."""
WAIT_NS = 10_000_000
TRACKS_TIMEOUT_S = 10.0


class Stopped(EdgeSegError):
    """Somebody asked to stop."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a file is to be like."""

    ending: str
    output: OutputFormat
    """`fps` is nominal, 0 where there is no such thing: the pictures' own times count."""
    pixel_aspect: Fraction
    encoder: str
    quality: int
    threads: int


class Writer:
    """A file in the making. `push` every picture, then `finish`; `close` in any case."""

    def __init__(
        self, path: Path, wanted: Wanted, recording: Path, given_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Writes to `path`, with all the sound of `recording`. Raises SinkError and EdgeSegError."""
        gst, _ = gstreamer.load("GstApp")
        self._gst, self._given_up = gst, given_up
        self._path, self._recording = path, recording
        size = wanted.output.width, wanted.output.height
        self.encoder = encoders.choose(encoding.candidates(wanted.quality), wanted.encoder, size=size)
        self._pipeline = gst.parse_launch(self._launch(wanted))
        self._source = self._pipeline.get_by_name("source")
        self._source.set_property("caps", gst.Caps.from_string(_caps(wanted)))
        self._pipeline.get_by_name("file").set_property("location", str(path))
        self._mux = self._pipeline.get_by_name("mux")
        if wanted.ending != ".mkv":
            for pad in self._mux.sinkpads:
                pad.set_property("trak-timescale", timescale(wanted.output.fps))
        self._bus = self._pipeline.get_bus()
        self.sound: list[str] = []
        """What is done with each track of sound, for people."""
        self._parts = 0
        self._parts_wanted: int | None = None
        """Not known before parsebin has told: its first track may be there by then."""
        self._failure: EdgeSegError | None = None
        self._reader: list[Any] = []
        try:
            self._open_sound()
        except BaseException:
            self.close()
            raise

    def push(self, picture: I420, pts_ns: int, duration_ns: int) -> None:
        """Takes a picture to be shown at `pts_ns` for `duration_ns` (0: until the next). Waits for the encoder."""
        while self._source.get_property("current-level-buffers") >= QUEUED:
            self._look(self._gst.MessageType.ERROR)
        self._look(self._gst.MessageType.ERROR, wait_ns=0)
        buffer = gstreamer.to_buffer(picture, pts_ns)
        if duration_ns:
            buffer.duration = duration_ns
        self._source.emit("push-buffer", buffer)

    def finish(self) -> None:
        """Writes what is still on its way, and what makes the file whole."""
        self._source.emit("end-of-stream")
        while not self._look(self._gst.MessageType.ERROR | self._gst.MessageType.EOS):
            pass

    def close(self) -> None:
        """May be called twice."""
        self._pipeline.set_state(self._gst.State.NULL)

    def _launch(self, wanted: Wanted) -> str:
        output = wanted.output
        nominal = output if output.fps else replace(output, fps=Fraction(30))
        text = self.encoder.launch(encoding.settings(nominal, wanted.threads))
        return (
            f"appsrc name=source format=time max-bytes=0 max-time=0 max-buffers=0 ! {text} ! h264parse ! "
            f"queue max-size-bytes=0 max-size-time=0 max-size-buffers=300 ! {MUXERS[wanted.ending]} name=mux ! "
            "filesink name=file async=false"
        )

    def _open_sound(self) -> None:
        """Reads the recording a second time, for its sound: the muxer takes from it what goes with the pictures."""
        gst = self._gst
        reader = gst.ElementFactory.make("filesrc")
        reader.set_property("location", str(self._recording))
        parts = gst.ElementFactory.make("parsebin")
        parts.connect("pad-added", self._on_part)
        self._reader = [parts, reader]
        # Into a pipeline that runs already: what its callbacks add takes over its state, and while that was still
        # changing, a decoder has been seen to be left behind.
        self._pipeline.set_state(gst.State.PLAYING)
        self._pipeline.get_state(int(TRACKS_TIMEOUT_S * gst.SECOND))
        for element in self._reader:
            self._pipeline.add(element)
        reader.link(parts)
        for element in (parts, reader):
            element.sync_state_with_parent()
        deadline = time.monotonic() + TRACKS_TIMEOUT_S
        # parsebin tells how many tracks there are on the bus, and has no signal for the last one.
        while (
            self._parts_wanted is None or self._parts < self._parts_wanted
        ) and time.monotonic() < deadline:
            self._look(gst.MessageType.ERROR | gst.MessageType.STREAM_COLLECTION)
            if self._failure is not None:
                raise self._failure
        if not self.sound:
            # Nothing to read any more: the whole file would pass by for nobody.
            for element in self._reader:
                element.set_state(gst.State.NULL)
                self._pipeline.remove(element)

    def _on_part(self, _parts: Any, pad: Any) -> None:
        """A track of the recording: sound goes to the muxer, anything else nowhere. In GStreamer's thread."""
        gst = self._gst
        caps = pad.get_current_caps() or pad.query_caps(None)
        try:
            track = sound.plan(caps, self._mux)
        except EdgeSegError as error:
            self._failure, track = error, None
        if track is not None:
            branch = gst.parse_bin_from_description(track.launch, True)
            self._pipeline.add(branch)
            branch.sync_state_with_parent()
            target = self._mux.request_pad_simple("audio_%u")
            branch.get_static_pad("src").link(target)
            pad.link(branch.get_static_pad("sink"))
            self.sound.append(track.what)
            self._parts += 1
            return
        nowhere = gst.ElementFactory.make("fakesink")
        nowhere.set_property("sync", False)
        nowhere.set_property("async", False)
        self._pipeline.add(nowhere)
        self._reader.append(nowhere)
        nowhere.sync_state_with_parent()
        pad.link(nowhere.get_static_pad("sink"))
        self._parts += 1

    def _look(self, types: Any, wait_ns: int = WAIT_NS) -> bool:
        """Waits a moment for a message of these types. Returns whether it is the end; raises what is an error."""
        if self._given_up():
            raise Stopped("stopped")
        message = self._bus.timed_pop_filtered(wait_ns, types)
        if message is None:
            return False
        if message.type == self._gst.MessageType.ERROR:
            error, debug = message.parse_error()
            raise EdgeSegError(f"{self._path.name}: {explain(error, debug or '')}")
        if message.type == self._gst.MessageType.STREAM_COLLECTION:
            self._parts_wanted = max(1, message.parse_stream_collection().get_size())
        return bool(message.type == self._gst.MessageType.EOS)


def explain(error: Any, debug: str) -> str:
    """One line on why nothing more can be written."""
    gst = gstreamer.load()
    if error.matches(gst.ResourceError.quark(), gst.ResourceError.NO_SPACE_LEFT) or "No space left" in debug:
        return "the disk is full"
    last = debug.strip().splitlines()[-1].strip() if debug.strip() else ""
    return f"{error.message.rstrip('.')}" + (f" ({last})" if last else "")


def timescale(fps: Fraction) -> int:
    """Units a second in which times are written: those of a constant rate exactly, others to within 6 us."""
    step = fps.numerator or 1
    return step * -(-90_000 // step)


def _caps(wanted: Wanted) -> str:
    output, aspect = wanted.output, wanted.pixel_aspect
    return gstreamer.raw_caps(output.width, output.height, output.fps, output.matrix).replace(
        "pixel-aspect-ratio=1/1", f"pixel-aspect-ratio={aspect.numerator}/{aspect.denominator}"
    )
