"""A video file as background: decoded by GStreamer in its own threads, looped, in time with the frames."""

from __future__ import annotations

import logging
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.backgrounds.base import Background, BackgroundSettings, Fit
from edge_seg.backgrounds.still import solid
from edge_seg.errors import ConfigError
from edge_seg.types import I420, Frame, Mask, Matrix

log = logging.getLogger(__name__)

_OPEN_TIMEOUT_NS = 5_000_000_000
_POLL_NS = 100_000_000
_QUEUED = 2
"""Pictures decoded ahead of their time."""
_DEFAULT_INTERVAL_NS = 40_000_000
_WAIT_S = 10.0

_COLORIMETRY = {Matrix.BT601: "bt601", Matrix.BT709: "bt709"}


def _gst() -> Any:
    try:
        import gi

        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        from gi.repository import Gst, GstApp  # noqa: F401 - GstApp gives appsink its methods
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"background.type: video needs GStreamer ({error}); install python3-gi, python3-gst-1.0, "
            "gir1.2-gst-plugins-base-1.0, gstreamer1.0-plugins-good and gstreamer1.0-libav"
        ) from error
    Gst.init(None)
    return Gst


def _description(width: int, height: int, fit: Fit, matrix: Matrix) -> str:
    crop = f"aspectratiocrop aspect-ratio={width}/{height} ! " if fit == "cover" else ""
    return (
        "uridecodebin name=decoder expose-all-streams=false caps=video/x-raw(ANY) ! "
        "videoflip video-direction=auto ! videoconvert n-threads=1 ! "
        f"{crop}videoscale n-threads=1 add-borders={'true' if fit == 'contain' else 'false'} ! "
        f"videoconvert n-threads=1 ! video/x-raw,format=I420,width={width},height={height},"
        f"pixel-aspect-ratio=1/1,colorimetry={_COLORIMETRY[matrix]} ! "
        "appsink name=sink sync=false max-buffers=2 enable-last-sample=false"
    )


class VideoBackground(Background):
    """Frames come decoded ahead of time from a thread of its own; what is due is shown, never waited for."""

    def __init__(self, settings: BackgroundSettings, width: int, height: int, matrix: Matrix) -> None:
        if settings.path is None:
            raise ConfigError("background.path: a video background needs the path of the video")
        _check_file(settings.path)
        self._gst = _gst()
        self._path = settings.path
        self._lock = threading.Condition()
        self._queue: deque[tuple[int, I420]] = deque()  # (media time in ns over all loops, picture)
        self._free = [I420.allocate(width, height, matrix) for _ in range(_QUEUED + 1)]
        self._shown = solid(settings.colour, width, height, matrix)
        self._began_ns: int | None = None
        self._closed = False
        self._ended = False
        self._pipeline = self._gst.parse_launch(_description(width, height, settings.fit, matrix))
        self._pipeline.get_by_name("decoder").set_property("uri", settings.path.absolute().as_uri())
        self._sink = self._pipeline.get_by_name("sink")
        try:
            self._preroll()
        except ConfigError:
            self._pipeline.set_state(self._gst.State.NULL)
            raise
        self._thread = threading.Thread(target=self._decode, name="background-video", daemon=True)
        self._thread.start()

    def render(self, frame: Frame, mask: Mask | None, now_ns: int) -> I420:
        with self._lock:
            self._take_due(now_ns)
            # Only a queue with something in it says that nothing more is due.
            while self.may_wait and not self._queue and not self._ended:
                if not self._lock.wait(_WAIT_S):
                    log.warning("background video %s: nothing decoded for %g s", self._path, _WAIT_S)
                    break
                self._take_due(now_ns)
        return self._shown

    def _take_due(self, now_ns: int) -> None:
        if self._began_ns is None and self._queue:
            self._began_ns = now_ns
        while self._queue and self._began_ns is not None and self._queue[0][0] <= now_ns - self._began_ns:
            self._free.append(self._shown)
            self._shown = self._queue.popleft()[1]
            self._lock.notify()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify()
        self._pipeline.set_state(self._gst.State.NULL)
        self._thread.join(timeout=2)

    def _preroll(self) -> None:
        gst = self._gst
        self._pipeline.set_state(gst.State.PAUSED)
        message = self._pipeline.get_bus().timed_pop_filtered(
            _OPEN_TIMEOUT_NS, gst.MessageType.ERROR | gst.MessageType.ASYNC_DONE | gst.MessageType.EOS
        )
        if message is None:
            raise ConfigError(f"background.path: {self._path} gave no picture within 5 s")
        if message.type == gst.MessageType.ERROR:
            raise ConfigError(
                f"background.path: cannot play {self._path}: {message.parse_error()[0].message}"
            )
        if self._sink.get_property("eos"):
            raise ConfigError(f"background.path: {self._path} holds no picture that can be decoded")
        self._pipeline.set_state(gst.State.PLAYING)

    def _decode(self) -> None:
        try:
            self._fill()
        finally:
            with self._lock:
                self._ended = True
                self._lock.notify()

    def _fill(self) -> None:
        """Fills the queue until closed; starts the file again at its end."""
        loop_start_ns, end_ns, got = 0, 0, 0
        while not self._closed:
            sample = self._sink.emit("try-pull-sample", _POLL_NS)
            if sample is not None:
                buffer = sample.get_buffer()
                position = sample.get_segment().to_running_time(self._gst.Format.TIME, buffer.pts)
                start_ns = (
                    end_ns if position in (None, self._gst.CLOCK_TIME_NONE) else loop_start_ns + position
                )
                length = buffer.duration
                end_ns = start_ns + (length if 0 < length < 1 << 62 else _DEFAULT_INTERVAL_NS)
                got += 1
                self._enqueue(start_ns, buffer)
            elif self._sink.get_property("eos") and not self._closed:
                if got == 0:
                    log.warning(
                        "background video %s: nothing more can be decoded, its last picture stays", self._path
                    )
                    return
                loop_start_ns, got = end_ns, 0
                flags = self._gst.SeekFlags.FLUSH | self._gst.SeekFlags.KEY_UNIT
                if not self._pipeline.seek_simple(self._gst.Format.TIME, flags, 0):
                    log.warning(
                        "background video %s cannot be played again, its last picture stays", self._path
                    )
                    return
            elif (error := self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)) is not None:
                log.warning(
                    "background video %s: %s, its last picture stays",
                    self._path,
                    error.parse_error()[0].message,
                )
                return

    def _enqueue(self, start_ns: int, buffer: Any) -> None:
        """Waits until the queue has room, then copies the picture into it."""
        with self._lock:
            self._lock.wait_for(lambda: self._closed or len(self._queue) < _QUEUED)
            if self._closed:
                return
            picture = self._free.pop()
        size = picture.buffer.size
        with buffer.map(self._gst.MapFlags.READ) as mapped:
            if mapped.size < size:
                raise RuntimeError(f"expected {size} bytes of I420, got {mapped.size}")
            picture.buffer[:] = np.frombuffer(mapped.data, np.uint8, count=size)
        with self._lock:
            self._queue.append((start_ns, picture))
            self._lock.notify()


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise ConfigError(f"background.path: {path} is empty")
    except OSError as error:
        raise ConfigError(f"background.path: cannot read {path}: {error.strerror}") from error
