"""Sources that GStreamer reads: video files and V4L2 cameras, all delivered as I420.

Frames are pulled in the reader's thread, without a GLib main loop. What GStreamer has to say (errors, end
of a loop) is taken from its bus between two pulls.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg import gstreamer
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.sources.base import FileSettings, SourceFormat, V4l2Settings
from edge_seg.types import I420, U8, Frame, Matrix

log = logging.getLogger(__name__)

OPEN_TIMEOUT_NS = 10_000_000_000
CLOSE_TIMEOUT_S = 1.0
SLICE_NS = 50_000_000
"""How long one wait for a frame may hide a message on the bus."""
SKEW_NS = 2_000_000_000
"""A time stamp further than this from the arrival is not a capture time on our clock."""

# The matrix of the source is kept; only what is neither BT.601 nor BT.709 in limited range is converted
# (full-range JPEG, BT.2020). n-threads=1: more threads cost more than they gain at our sizes.
SINK = (
    "videoconvert n-threads=1 ! capsfilter name=format "
    "caps=video/x-raw,format=I420,colorimetry={{bt709,bt601}} "
    "! appsink name=sink sync={sync} max-buffers=2 drop=true enable-last-sample=false qos=false"
)


class GstSource:
    """A pipeline that ends in an appsink, seen as a source. Subclasses say how it begins."""

    name = "gst"
    live = True

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._pipeline: Any = None
        self._sink: Any = None
        self._bus: Any = None
        self._format: SourceFormat | None = None
        self._caps: Any = None
        self._first: Any = None
        self._arrived: deque[tuple[int, int]] = deque(maxlen=64)
        self._count = 0
        self._seq = -1

    @property
    def format(self) -> SourceFormat:
        if self._format is None:
            raise SourceLost(f"{self.name} is not open")
        return self._format

    def open(self) -> None:
        gst = gstreamer.load()
        self._pipeline = pipeline = self._build()
        self._sink = pipeline.get_by_name("sink")
        self._bus = pipeline.get_bus()
        # Its clock is CLOCK_MONOTONIC, which is time.monotonic_ns: time stamps become capture times.
        pipeline.use_clock(gst.SystemClock.obtain())
        self._sink.get_static_pad("sink").add_probe(gst.PadProbeType.BUFFER, self._count_buffer)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        log.info("%s: %s", self.name, self._format)

    def read(self, timeout_ns: int) -> Frame | None:
        pipeline, sink = self._pipeline, self._sink
        if pipeline is None:
            raise SourceLost(f"{self.name} is closed")
        deadline_ns = self._clock() + timeout_ns
        while True:
            sample, self._first = self._first, None
            if sample is None:
                wait_ns = min(SLICE_NS, max(0, deadline_ns - self._clock()))
                sample = sink.emit("try-pull-sample", wait_ns)
            self._handle_messages()
            if sample is not None:
                return self._frame(sample)
            if sink.get_property("eos"):
                self._on_end()
            if self._clock() >= deadline_ns:
                return None

    def close(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        gst = gstreamer.load()
        if not bounded(lambda: pipeline.set_state(gst.State.NULL), CLOSE_TIMEOUT_S):
            log.warning("%s: the driver does not let go of the stream; it is left behind", self.name)

    def _build(self) -> Any:
        """The pipeline, not started. Raises ConfigError."""
        raise NotImplementedError

    def _failed(self, message: str, debug: str) -> Exception:
        """What an error of GStreamer means to the user."""
        return SourceLost(f"{self.name}: {message}")

    def _on_end(self) -> None:
        raise SourceLost(f"{self.name}: the stream has ended")

    def _on_segment_done(self) -> None:
        pass

    def _start(self) -> None:
        gst = gstreamer.load()
        self._set_state(gst.State.PLAYING)
        self._first = self._wait_for_sample(lambda wait_ns: self._sink.emit("try-pull-sample", wait_ns))
        self._learn_format(self._first.get_caps())

    def _set_state(self, state: Any) -> None:
        if not bounded(lambda: self._pipeline.set_state(state), OPEN_TIMEOUT_NS / 1e9):
            raise SourceLost(f"{self.name}: the driver hangs while it is opened")

    def _wait_for_sample(self, pull: Callable[[int], Any]) -> Any:
        deadline_ns = self._clock() + OPEN_TIMEOUT_NS
        while self._clock() < deadline_ns:
            sample = pull(SLICE_NS)
            self._handle_messages()
            if sample is not None:
                return sample
            if self._sink.get_property("eos"):
                raise self._failed("it holds no picture that can be decoded", "")
        raise SourceLost(f"{self.name}: no picture within {OPEN_TIMEOUT_NS / 1e9:.0f} s")

    def _handle_messages(self) -> None:
        gst = gstreamer.load()
        types = gst.MessageType.ERROR | gst.MessageType.SEGMENT_DONE
        while (message := self._bus.pop_filtered(types)) is not None:
            if message.type == gst.MessageType.SEGMENT_DONE:
                self._on_segment_done()
                continue
            error, debug = message.parse_error()
            raise self._failed(error.message, debug or "")

    def _count_buffer(self, pad: Any, info: Any) -> Any:
        """Numbers each buffer that reaches the sink: those that it drops count as well."""
        self._arrived.append((info.get_buffer().pts, self._count))
        self._count += 1
        return gstreamer.load().PadProbeReturn.OK

    def _frame(self, sample: Any) -> Frame:
        arrival_ns = self._clock()
        buffer, caps = sample.get_buffer(), sample.get_caps()
        if self._caps is None or not caps.is_equal(self._caps):
            self._learn_format(caps)
        shape = self.format
        picture = copy_picture(buffer, shape.width, shape.height, shape.matrix)
        while self._arrived:
            pts, seq = self._arrived.popleft()
            if pts == buffer.pts:
                self._seq = seq
                break
        return Frame(picture, self._seq, self._capture_ns(sample, arrival_ns))

    def _capture_ns(self, sample: Any, arrival_ns: int) -> int:
        gst = gstreamer.load()
        buffer, segment = sample.get_buffer(), sample.get_segment()
        if buffer.pts != gst.CLOCK_TIME_NONE and segment is not None:
            running = segment.to_running_time(gst.Format.TIME, buffer.pts)
            if running != gst.CLOCK_TIME_NONE:
                stamp = int(running + self._pipeline.get_base_time())
                if 0 <= arrival_ns - stamp < SKEW_NS:
                    return stamp
        return arrival_ns

    def _learn_format(self, caps: Any) -> None:
        structure = caps.get_structure(0)
        found, num, den = structure.get_fraction("framerate")
        self._format = SourceFormat(
            width=structure.get_int("width")[1],
            height=structure.get_int("height")[1],
            fps=Fraction(num, den) if found and den else Fraction(0),
            matrix=Matrix(structure.get_string("colorimetry") or "bt709"),
        )
        self._caps = caps


class FileSource(GstSource):
    """Plays a video file by the clock, at its own frame rate."""

    live = True

    def __init__(self, settings: FileSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(clock)
        self.name = settings.path
        self._settings = settings
        self._path = Path(settings.path)
        self._streams: list[str] = []
        self._missing = ""
        self._seekable = False
        self._since_seek = 0

    def open(self) -> None:
        check_file(self._path)
        super().open()

    def _build(self) -> Any:
        gst = gstreamer.load()
        pipeline = gst.parse_launch(
            "uridecodebin name=decoder expose-all-streams=false caps=video/x-raw(ANY) "
            "videoflip name=flip video-direction=auto ! " + SINK.format(sync="true")
        )
        decoder, flip = pipeline.get_by_name("decoder"), pipeline.get_by_name("flip")
        decoder.set_property("uri", self._path.resolve().as_uri())
        decoder.connect("pad-added", _link_first_video, flip)
        return pipeline

    def _start(self) -> None:
        gst = gstreamer.load()
        self._set_state(gst.State.PAUSED)
        preroll = self._wait_for_sample(lambda wait_ns: self._sink.emit("try-pull-preroll", wait_ns))
        self._learn_format(preroll.get_caps())
        if self._settings.loop:
            # A seek with SEGMENT: at its end comes a message instead of an end of stream, and the next seek
            # needs no flush, so that the loop has no gap.
            self._count = 0
            self._arrived.clear()
            self._seek(gst.SeekFlags.FLUSH | gst.SeekFlags.SEGMENT)
        self._set_state(gst.State.PLAYING)

    def _seek(self, flags: Any) -> bool:
        gst = gstreamer.load()
        kind = gst.SeekType.SET
        self._since_seek = self._count
        return bool(self._pipeline.seek(1.0, gst.Format.TIME, flags, kind, 0, kind, -1))

    def _on_segment_done(self) -> None:
        gst = gstreamer.load()
        if not self._seek(gst.SeekFlags.SEGMENT):
            self._on_end()

    def _on_end(self) -> None:
        gst = gstreamer.load()
        if not self._settings.loop:
            raise SourceLost(f"{self.name}: end of the file")
        if self._count == self._since_seek:
            raise SourceLost(f"{self.name}: nothing to play after a jump to its start")
        if not self._seek(gst.SeekFlags.FLUSH | gst.SeekFlags.SEGMENT):
            raise SourceLost(f"{self.name}: this kind of file cannot be played in a loop")

    def _failed(self, message: str, debug: str) -> Exception:
        return ConfigError(f"{self.name}: {message} [{debug}]")


class V4l2Source(GstSource):
    """A camera of the kernel."""

    def __init__(self, settings: V4l2Settings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(clock)
        self.name = settings.device
        self._settings = settings

    def _build(self) -> Any:
        raise NotImplementedError


def check_file(path: Path) -> None:
    """Raises ConfigError where the file system already says that this cannot be played."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a directory; name a video file in it")
        if not path.is_file():
            raise ConfigError(f"{path}: no such file (relative paths start from {Path.cwd()})")
        with path.open("rb") as file:
            if not file.read(1):
                raise ConfigError(f"{path}: is empty")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def copy_picture(buffer: Any, width: int, height: int, matrix: Matrix) -> I420:
    """Our own copy of a GStreamer I420 buffer, whatever its strides."""
    gst, gst_video = gstreamer.load("GstVideo")
    picture = I420.allocate(width, height, matrix)
    meta = gst_video.buffer_get_video_meta(buffer)
    with buffer.map(gst.MapFlags.READ) as mapped:
        data: U8 = np.frombuffer(mapped.data, np.uint8)
        if meta is None and data.size == picture.buffer.size:
            np.copyto(picture.buffer, data)
            return picture
        if meta is None:
            raise SourceLost(f"a {width}x{height} I420 picture came with {data.size} bytes and no layout")
        for plane, offset, stride in zip(picture.planes, meta.offset[:3], meta.stride[:3], strict=True):
            rows, cols = plane.shape
            np.copyto(plane, np.lib.stride_tricks.as_strided(data[offset:], (rows, cols), (stride, 1)))
    return picture


def bounded(call: Callable[[], object], seconds: float) -> bool:
    """Runs a call that a driver can make hang, and says if it came back in time."""
    thread = threading.Thread(target=call, name="gst-state", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def _link_first_video(decoder: Any, pad: Any, flip: Any) -> None:
    target = flip.get_static_pad("sink")
    if not target.is_linked():
        pad.link(target)
