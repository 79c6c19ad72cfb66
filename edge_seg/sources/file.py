"""Video files, played by the clock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.sources.base import FileSettings
from edge_seg.sources.gst import SINK, GstSource

CODEC_PACKAGES = "gstreamer1.0-libav gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
_MISSING = re.compile(r"Missing decoder: (.+?) \((\w+)/")
CUT_OFF_NS = 500_000_000
"""A file that ends this much before the length that it states has been cut off."""


class FileSource(GstSource):
    """Plays a video file at its own frame rate, upright, without its sound."""

    def __init__(self, settings: FileSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(clock)
        self.name = settings.path
        self._loop = settings.loop
        self._path = Path(settings.path)
        self._playing = False
        self._rounds = 0
        self._without_flush = False
        self._in_segments = True
        self._played_ns = 0
        self._length_ns = 0
        self._count_at_start = 0

    def open(self) -> None:
        check_file(self._path)
        super().open()

    def _build(self) -> Any:
        gst = gstreamer.load()
        self._playing, self._played_ns = False, 0
        self._rounds, self._without_flush = 0, False
        pipeline = gst.parse_launch(
            "uridecodebin name=decoder expose-all-streams=false caps=video/x-raw(ANY) "
            "videoflip name=flip video-direction=auto ! " + SINK.format(sync="true", buffers=8)
        )
        decoder, flip = pipeline.get_by_name("decoder"), pipeline.get_by_name("flip")
        decoder.set_property("uri", self._path.resolve().as_uri())
        decoder.connect("pad-added", _link_first, flip)
        flip.get_static_pad("sink").add_probe(gst.PadProbeType.EVENT_DOWNSTREAM, self._space_loops)
        return pipeline

    def _space_loops(self, pad: Any, info: Any) -> Any:
        """Leaves the last frame of a round its time. After a seek without a flush the running time goes on
        from the last frame's beginning, not from its end."""
        gst = gstreamer.load()
        if info.get_event().type == gst.EventType.SEGMENT:
            fps = self.format.fps if self._playing else Fraction(0)
            self._rounds += self._without_flush
            pad.set_offset(round(self._rounds * 1_000_000_000 / (fps or 30)))
        return gst.PadProbeReturn.OK

    def _start(self) -> None:
        gst = gstreamer.load()
        self._set_state(gst.State.PAUSED)
        preroll = self._wait_for_sample("try-pull-preroll")
        self._learn_format(preroll.get_caps())
        known, length_ns = self._opened(self._pipeline).query_duration(gst.Format.TIME)
        self._length_ns = length_ns if known else 0
        if not self._length_ns and not self.format.fps:
            raise ConfigError(f"{self.name}: is a single picture; a source has to be a video")
        if self._loop and self._in_segments:
            # A seek with SEGMENT: at its end comes a message instead of an end of stream, and the next seek
            # needs no flush, so that the loop has no gap.
            self._reset_count()
            if not self._seek(gst.SeekFlags.FLUSH | gst.SeekFlags.SEGMENT):
                # MPEG-TS cannot do that, and the refused flush leaves the pipeline useless.
                self._in_segments = False
                self.close()
                return super().open()
        self._set_state(gst.State.PLAYING)
        self._playing = True

    def _frame(self, sample: Any) -> Any:
        buffer = sample.get_buffer()
        if buffer.pts != gstreamer.load().CLOCK_TIME_NONE:
            position = sample.get_segment().to_stream_time(gstreamer.load().Format.TIME, buffer.pts)
            self._played_ns = max(self._played_ns, position)
        return super()._frame(sample)

    def _seek(self, flags: Any) -> bool:
        gst = gstreamer.load()
        kind = gst.SeekType.SET
        self._count_at_start = self._count
        pipeline = self._opened(self._pipeline)
        return bool(pipeline.seek(1.0, gst.Format.TIME, flags, kind, 0, kind, -1))

    def _on_segment_done(self) -> None:
        self._without_flush = True
        if not self._seek(gstreamer.load().SeekFlags.SEGMENT):
            self._on_end()

    def _on_end(self) -> None:
        if not self._loop:
            if self._cut_off():
                raise SourceLost(
                    f"{self.name}: is cut off: it ends after {self._played_ns / 1e9:.1f} s of "
                    f"{self._length_ns / 1e9:.1f} s"
                )
            raise SourceLost(f"{self.name}: end of the file")
        if self._count == self._count_at_start:
            raise SourceLost(f"{self.name}: nothing to play after a jump to its start")
        flags = gstreamer.load().SeekFlags
        self._rounds, self._without_flush = 0, False
        if not self._seek(flags.FLUSH | flags.SEGMENT if self._in_segments else flags.FLUSH):
            raise SourceLost(f"{self.name}: this kind of file cannot be played in a loop")

    def _cut_off(self) -> bool:
        return self._played_ns + CUT_OFF_NS < self._length_ns

    def _failed(self, error: Any, debug: str) -> Exception:
        if self._playing:
            return SourceLost(f"{self.name}: after {self._played_ns / 1e9:.1f} s: {error.message}")
        return ConfigError(f"{self.name}: {explain(error.message, debug)}")


def explain(message: str, debug: str) -> str:
    """One line on why a file cannot be opened, from an error of GStreamer and its details."""
    missing = _MISSING.findall(debug)
    pictures = [name for name, kind in missing if kind in ("video", "image")]
    if pictures:
        return f"no decoder for {', '.join(pictures)}; run `sudo apt install {CODEC_PACKAGES}`"
    if missing:
        return "holds no picture; name a video file"
    return f"is not a video that can be played: {message.rstrip('.')}"


def check_file(path: Path) -> None:
    """Raises ConfigError where a look at the file already says that it cannot be played."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a directory; name a video file in it")
        if not path.exists():
            raise ConfigError(f"{path}: no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}"))
        if not path.is_file():
            raise ConfigError(f"{path}: is not a file; cameras are sources of type v4l2")
        if not path.stat().st_size:
            raise ConfigError(f"{path}: is empty")
        if not has_index(path):
            raise ConfigError(
                f"{path}: is cut off: its index (moov), which is written last, is missing; copy it again, or "
                "record to .mkv, which survives this"
            )
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def has_index(path: Path) -> bool:
    """False for an MP4 file without the index that makes it playable; every other file is left to GStreamer.

    GStreamer says it itself, but decodebin loses the message in one of four attempts (1.22) and then waits.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        position, kind = 0, b""
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if position == 0 and kind != b"ftyp":
                return True
            if kind in (b"moov", b"moof"):
                return True
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:  # 0: up to the end of the file
                break
            position += length
    return False


def _link_first(decoder: Any, pad: Any, flip: Any) -> None:
    target = flip.get_static_pad("sink")
    if not target.is_linked():
        pad.link(target)
