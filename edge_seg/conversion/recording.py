"""A video file, read frame by frame as fast as they are asked for, with the times that are in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import SourceLost
from edge_seg.geometry import WHOLE, Geometry
from edge_seg.sources import FileSettings
from edge_seg.sources.file import FileSource
from edge_seg.types import Frame

READ_NS = 100_000_000
"""How often a wait for a frame looks whether it is still wanted."""
PATIENCE_READS = 600
"""A decoder that gives nothing for a minute is stuck."""
QUEUED = 4
"""Frames decoded ahead."""


class _End(SourceLost):
    """There are no more frames."""


class Recording(FileSource):
    """Every frame of a file, upright, with its presentation time in `captured_ns`: 0 is the file's beginning."""

    live = False

    def __init__(self, path: Path, geometry: Geometry = WHOLE) -> None:
        super().__init__(FileSettings(path=str(path)))
        self.geometry = geometry
        self.pixel_aspect = Fraction(1)
        """Width of a pixel by its height, as `geometry` turns it."""
        self.duration_ns = 0
        """Of the frame that was read last; 0 where the file does not say."""
        self._last_ns = -1
        self._pts: int | None = None
        self._segment: Any = None

    @property
    def length_ns(self) -> int:
        """Of the whole file, as it says itself; 0 where it does not."""
        return self._length_ns

    def frames(self, given_up: Callable[[], bool] = lambda: False) -> Iterator[tuple[Frame, int]]:
        """Each frame and its duration in ns, to the end of the file or until `given_up`. The first call only."""
        first = self._next(given_up)
        if first is None:
            return
        first_pts, duration_ns = self._pts, self.duration_ns
        following = self._next(given_up)
        if following is not None and first_pts is not None:
            # matroskademux takes the first picture for the beginning of the file until it meets earlier sound.
            first = replace(first, captured_ns=self._running_ns(first_pts) or first.captured_ns)
        yield first, duration_ns
        while following is not None:
            yield following, self.duration_ns
            following = self._next(given_up)

    def _next(self, given_up: Callable[[], bool]) -> Frame | None:
        for _ in range(PATIENCE_READS):
            if given_up():
                return None
            try:
                frame = self.read(READ_NS)
            except _End:
                return None
            if frame is not None:
                return frame
        raise SourceLost(f"{self.name}: no frame within a minute")

    @property
    def ends_early_ns(self) -> int:
        """How much longer than its pictures the file says that it is, where that is noteworthy."""
        return self._length_ns - self._played_ns if self._cut_off() else 0

    def _build(self) -> Any:
        pipeline = super()._build()
        sink = pipeline.get_by_name("sink")
        sink.set_property("sync", False)
        sink.set_property("drop", False)
        sink.set_property("max-buffers", QUEUED)
        return pipeline

    def _on_end(self) -> None:
        raise _End(f"{self.name}: end of the file")

    def _learn_format(self, caps: Any) -> None:
        previous = self._format
        super()._learn_format(caps)
        if previous is not None and self._playing:
            before, now = (previous.width, previous.height), (self.format.width, self.format.height)
            if before != now or previous.matrix != self.format.matrix:
                raise SourceLost(
                    f"{self.name}: the picture changes from {before[0]}x{before[1]} {previous.matrix.value} to "
                    f"{now[0]}x{now[1]} {self.format.matrix.value} after {self._played_ns / 1e9:.1f} s; "
                    "cut the file there and convert both parts"
                )
        _, gst_video = gstreamer.load("GstVideo")
        video = gst_video.VideoInfo.new_from_caps(caps)
        aspect = Fraction(video.par_n, video.par_d) if video.par_n and video.par_d else Fraction(1)
        self.pixel_aspect = 1 / aspect if self.geometry.rotate in (90, 270) else aspect

    def _capture_ns(self, sample: Any, arrival_ns: int) -> int:
        gst = gstreamer.load()
        buffer, segment = sample.get_buffer(), sample.get_segment()
        known = buffer.duration != gst.CLOCK_TIME_NONE
        fps = self.format.fps
        self.duration_ns = int(buffer.duration) if known else round(1_000_000_000 / fps) if fps else 0
        self._segment = segment
        self._pts = None if buffer.pts == gst.CLOCK_TIME_NONE else int(buffer.pts)
        stamp = self._running_ns(self._pts)
        if stamp is None or stamp <= self._last_ns:
            # A frame without a time of its own, or with a wrong one: after the one before it.
            stamp = self._last_ns + max(self.duration_ns, 1) if self._last_ns >= 0 else 0
        self._last_ns = stamp
        return stamp

    def _running_ns(self, pts: int | None) -> int | None:
        """The time in the file of a frame of the current segment."""
        gst = gstreamer.load()
        if pts is None:
            return None
        time = self._segment.to_running_time(gst.Format.TIME, pts)
        return None if time == gst.CLOCK_TIME_NONE else int(time)
