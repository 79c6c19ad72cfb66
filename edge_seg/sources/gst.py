"""What all sources that GStreamer reads have in common: a pipeline that ends in I420 frames.

Frames are pulled in the reader's thread, without a GLib main loop. What GStreamer has to say (errors, end
of a loop) is taken from its bus between two pulls.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import cv2
import numpy as np

from edge_seg import gstreamer
from edge_seg.errors import SourceLost
from edge_seg.geometry import WHOLE, Geometry, output_size, place
from edge_seg.sources.base import SourceFormat
from edge_seg.sources.bounded import bounded
from edge_seg.types import I420, U8, Frame, Matrix

log = logging.getLogger(__name__)

OPEN_TIMEOUT_NS = 10_000_000_000
CLOSE_TIMEOUT_S = 1.0
SLICE_NS = 50_000_000
"""How long one wait for a frame may hide a message on the bus."""
SKEW_NS = 2_000_000_000
"""A time stamp further than this from the arrival is not a capture time on our clock."""

# n-threads=1: more threads cost more than they gain at our sizes.
SINK = (
    "videoconvert name=convert n-threads=1 ! capsfilter name=wanted caps=video/x-raw,format=I420 "
    "! appsink name=sink sync={sync} max-buffers={buffers} drop=true enable-last-sample=false qos=false"
)
"""How every pipeline ends. `sync`: whether frames wait for their time, as those of a file must;
`buffers`: how many may wait for the reader before the oldest is lost."""
LIVE_SINK = SINK.format(sync="false", buffers=2)
"""Of a camera: only its newest pictures count."""


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
        self._geometry = WHOLE
        self._size = 0, 0
        """Of the pictures that come, before the geometry is applied."""
        self._caps: Any = None
        self._full_range = False
        self._first: Any = None
        self._arrived: deque[tuple[int, int]] = deque(maxlen=64)
        self._count = 0
        self._seq = -1

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @geometry.setter
    def geometry(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._caps = None  # the format is to be learnt anew

    @property
    def format(self) -> SourceFormat:
        if self._format is None:
            raise SourceLost(f"{self.name} is not open")
        return self._format

    def open(self) -> None:
        gst = gstreamer.load()
        self._reset_count()
        self._seq, self._first, self._caps = -1, None, None
        self._pipeline = pipeline = self._build()
        self._sink = pipeline.get_by_name("sink")
        self._bus = pipeline.get_bus()
        # Its clock is CLOCK_MONOTONIC, which is time.monotonic_ns: time stamps become capture times.
        pipeline.use_clock(gst.SystemClock.obtain())
        self._sink.get_static_pad("sink").add_probe(gst.PadProbeType.BUFFER, self._count_buffer)
        convert, wanted = pipeline.get_by_name("convert"), pipeline.get_by_name("wanted")
        convert.get_static_pad("sink").add_probe(gst.PadProbeType.EVENT_DOWNSTREAM, _choose_matrix, wanted)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        log.info("%s: %s", self.name, self._format)

    def read(self, timeout_ns: int) -> Frame | None:
        sink = self._opened(self._sink)
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
        # The probes refer to this object: if it referred to the elements, neither would ever be freed.
        self._sink = self._bus = self._first = None
        gst = gstreamer.load()
        if not bounded(lambda: pipeline.set_state(gst.State.NULL), CLOSE_TIMEOUT_S):
            log.warning("%s: the driver does not let go of the stream; it is left behind", self.name)

    def _opened(self, part: Any) -> Any:
        """A part of the running pipeline; another thread may have closed it meanwhile."""
        if part is None:
            raise SourceLost(f"{self.name} is closed")
        return part

    def _build(self) -> Any:
        """The pipeline, not started. Raises ConfigError."""
        raise NotImplementedError

    def _failed(self, error: Any, debug: str) -> Exception:
        """What an error of GStreamer (a GLib.Error) means to the user."""
        return SourceLost(f"{self.name}: {error.message}")

    def _on_end(self) -> None:
        raise SourceLost(f"{self.name}: the stream has ended")

    def _on_segment_done(self) -> None:
        pass

    def _start(self) -> None:
        gst = gstreamer.load()
        self._set_state(gst.State.PLAYING)
        self._first = self._wait_for_sample("try-pull-sample")
        self._learn_format(self._first.get_caps())

    def _set_state(self, state: Any) -> None:
        pipeline = self._opened(self._pipeline)
        if not bounded(lambda: pipeline.set_state(state), OPEN_TIMEOUT_NS / 1e9):
            raise SourceLost(f"{self.name}: the driver hangs while it is opened")

    def _wait_for_sample(self, pull: str) -> Any:
        deadline_ns = self._clock() + OPEN_TIMEOUT_NS
        while self._clock() < deadline_ns:
            sample = self._opened(self._sink).emit(pull, SLICE_NS)
            self._handle_messages()
            if sample is not None:
                return sample
            if self._opened(self._sink).get_property("eos"):
                raise SourceLost(f"{self.name}: ended before the first picture")
        raise SourceLost(f"{self.name}: no picture within {OPEN_TIMEOUT_NS / 1e9:.0f} s")

    def _handle_messages(self) -> None:
        gst = gstreamer.load()
        types = gst.MessageType.ERROR | gst.MessageType.SEGMENT_DONE
        while (message := self._opened(self._bus).pop_filtered(types)) is not None:
            if message.type == gst.MessageType.SEGMENT_DONE:
                self._on_segment_done()
            else:
                error, debug = message.parse_error()
                raise self._failed(error, debug or "")

    def _reset_count(self) -> None:
        self._count = 0
        self._arrived.clear()

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
        picture = copy_picture(buffer, *self._size, shape.matrix, self._geometry)
        if self._full_range:
            compress_range(picture)
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
                stamp = int(running + self._opened(self._pipeline).get_base_time())
                if 0 <= arrival_ns - stamp < SKEW_NS:
                    return stamp
        return arrival_ns

    def _learn_format(self, caps: Any) -> None:
        _, gst_video = gstreamer.load("GstVideo")
        video = gst_video.VideoInfo.new_from_caps(caps)
        fallback = Matrix.BT709 if video.height > 576 else Matrix.BT601
        self._size = video.width, video.height
        width, height = output_size(*self._size, self._geometry)
        self._format = SourceFormat(
            width=width,
            height=height,
            fps=Fraction(video.fps_n, video.fps_d) if video.fps_d else Fraction(0),
            matrix=our_matrix(video.colorimetry.matrix.value_nick) or fallback,
        )
        self._full_range = video.colorimetry.range.value_nick == "0-255"
        self._caps = caps


def copy_picture(buffer: Any, width: int, height: int, matrix: Matrix, geometry: Geometry = WHOLE) -> I420:
    """Our own copy of a GStreamer I420 buffer of this size, whatever its strides, and what `geometry` makes of it."""
    gst, gst_video = gstreamer.load("GstVideo")
    picture = I420.allocate(*output_size(width, height, geometry), matrix)
    layout = meta = gst_video.buffer_get_video_meta(buffer)
    with buffer.map(gst.MapFlags.READ) as mapped:
        data: U8 = np.frombuffer(mapped.data, np.uint8)
        if meta is None and data.size == I420.buffer_size(width, height):
            if geometry == WHOLE:
                np.copyto(picture.buffer, data)
            else:
                place(I420.wrap(data, width, height).planes, geometry, picture)
            return picture
        if meta is None:
            # GStreamer's own layout, perhaps in more memory than it needs: v4l2loopback's are whole pages.
            layout = gst_video.VideoInfo.new()
            layout.set_format(gst_video.VideoFormat.I420, width, height)
        planes: list[U8] = []
        for offset, stride in zip(layout.offset[:3], layout.stride[:3], strict=True):
            rows, cols = (height, width) if not planes else ((height + 1) // 2, (width + 1) // 2)
            if stride < cols or offset + stride * (rows - 1) + cols > data.size:
                raise SourceLost(
                    f"a {width}x{height} I420 picture came with a layout beyond its {data.size} bytes"
                )
            planes.append(np.lib.stride_tricks.as_strided(data[offset:], (rows, cols), (stride, 1)))
        place((planes[0], planes[1], planes[2]), geometry, picture)
    return picture


def _choose_matrix(pad: Any, info: Any, wanted: Any) -> Any:
    """Decides what videoconvert does about colours, as soon as the source says what it has.

    BT.601 and BT.709 pass as they are. Left to itself with a choice of the two, videoconvert would change a
    picture of unusual or no colorimetry to the first. It must not see a full range either: from full to
    limited range of the same matrix it just copies (1.22), so that is done with the copy of the frame.
    """
    gst, gst_video = gstreamer.load("GstVideo")
    event = info.get_event()
    if event.type == gst.EventType.CAPS:
        video = gst_video.VideoInfo.new_from_caps(event.parse_caps())
        if video is not None:
            kept = our_matrix(video.colorimetry.matrix.value_nick) is not None
            colorimetry = "" if kept else f",colorimetry={'bt709' if video.height > 576 else 'bt601'}"
            wanted.set_property("caps", gst.Caps.from_string(f"video/x-raw,format=I420{colorimetry}"))
    return gst.PadProbeReturn.OK


def our_matrix(nick: str) -> Matrix | None:
    """Ours for GStreamer's name of a matrix; None where it has to be converted (RGB, BT.2020, ...)."""
    # FCC is BT.601 but for 0.01 in one coefficient; unknown is what videoconvert leaves alone, too.
    return {"bt601": Matrix.BT601, "fcc": Matrix.BT601, "bt709": Matrix.BT709}.get(nick)


def compress_range(picture: I420) -> None:
    """From full range (0 to 255, as in JPEG) to limited range, in place."""
    for plane, table in zip(picture.planes, _range_tables(), strict=True):
        cv2.LUT(plane, table, dst=plane)


@cache
def _range_tables() -> tuple[U8, U8, U8]:
    value = np.arange(256)
    luma = np.rint(16 + value * (219 / 255)).astype(np.uint8)
    chroma = np.rint(128 + (value - 128) * (224 / 255)).astype(np.uint8)
    return luma, chroma, chroma
