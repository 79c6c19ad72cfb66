"""Recordings: files of a limited length, each playable up to the moment when the power fails."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator

from edge_seg import gstreamer
from edge_seg.encoders import Encoder, Encoding
from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.encoded import EncodedSink
from edge_seg.sinks.retention import DIRECTIVES, Naming, free_bytes, too_many

log = logging.getLogger(__name__)

MB = 1_000_000
FRAGMENT_MS = 1000
"""An MP4 file is playable up to its last whole fragment."""
LOOK_AFTER_S = 2.0
"""How often what was written is brought to the disk, and old files and free space are looked after."""
LEAST_MB = 1
"""With less, no file is begun, even where there is to be no reserve."""
ENDINGS = (".mp4", ".mkv")


def _pattern(text: str) -> str:
    path = Path(text)
    if path.suffix not in ENDINGS:
        raise ValueError(f"a name that ends in {' or '.join(ENDINGS)}")
    if "%" in str(path.parent):
        raise ValueError("the time in the name of the file only, not in that of its folder")
    unknown = [found for found in re.findall(r"%.?", path.name) if found not in DIRECTIVES]
    if unknown:
        raise ValueError(f"a name with no other than {', '.join(DIRECTIVES)} (strftime), not {unknown[0]}")
    return text


@dataclass(frozen=True)
class FileOutputSettings(Encoding):
    """A recording."""

    type: Literal["file"] = "file"
    path: Annotated[str, AfterValidator(_pattern)] = "%Y-%m-%d_%H-%M-%S.mp4"
    """.mp4 (in fragments) or .mkv; with the local time at which a file begins. Its folder must be there."""
    split_s: Annotated[float, Ge(0), Le(86_400)] = 600.0
    """A new file begins at the first key frame after so many seconds. 0: never."""
    split_mb: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """And before a file is larger than so many million bytes. 0: no limit."""
    keep_mb: Annotated[int, Ge(0), Le(100_000_000)] = 0
    """The oldest files of this name are removed when all together are larger. 0: none is."""
    keep_files: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """And when there are more. 0: no limit."""
    min_free_mb: Annotated[int, Ge(0), Le(10_000_000)] = 100
    """The recording stops before there is less room on the disk, and goes on when there is more again."""


class FileSink(EncodedSink):
    """Writes to files that follow each other without a gap."""

    name = "file"
    depth = 8

    def __init__(self, settings: FileOutputSettings) -> None:
        super().__init__(settings)
        self._files = settings
        self._naming = Naming(Path(settings.path))
        self._current: Path | None = None
        self._keeper: _Keeper | None = None

    def open(self, output: OutputFormat) -> None:
        folder = self._naming.folder
        if not folder.is_dir():
            raise SinkError(f"{self._where()}: there is no folder {folder}; make it, or mount its disk")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SinkError(f"{self._where()}: this user may not write to {folder}", permanent=True)
        keeper = _Keeper(self._naming, self._files, lambda: self._current)
        keeper.look_after(LEAST_MB)
        if keeper.problem is not None:
            raise SinkError(f"{self._where()}: {keeper.problem}")
        super().open(output)
        self._keeper = keeper
        keeper.start()

    def push(self, picture: Any, captured_ns: int) -> None:
        if self._keeper is not None and self._keeper.problem is not None:
            raise SinkError(f"{self._where()}: {self._keeper.problem}")
        super().push(picture, captured_ns)

    def adjust(self, settings: Any) -> bool:
        if not super().adjust(settings):
            return False
        self._files = settings
        return True

    def _behind(self, encoder: Encoder) -> str:
        # config-interval=-1: each file can be read without the one before.
        return f"{encoder.parser} name=parser config-interval=-1"

    def _prepare(self, pipeline: Any) -> None:
        gst = gstreamer.load()
        # Not in the launch text: a link makes it take the default muxer, for good.
        files, settings = gst.ElementFactory.make("splitmuxsink"), self._files
        is_mp4 = self._files.path.endswith(".mp4")
        muxer = gst.ElementFactory.make("mp4mux" if is_mp4 else "matroskamux")
        if is_mp4:
            muxer.set_property("fragment-duration", FRAGMENT_MS)
            # An index at the end of a file that was ended in peace, on top.
            muxer.set_property("fragment-mode", 1)
        else:
            muxer.set_property("offset-to-zero", True)
        sink = gst.ElementFactory.make("filesink")
        sink.set_property("buffer-mode", 2)  # unbuffered: a muxer writes in large pieces
        files.set_property("muxer", muxer)
        files.set_property("sink", sink)
        files.set_property("max-size-time", round(settings.split_s * 1e9))
        files.set_property("max-size-bytes", settings.split_mb * MB)
        files.connect("format-location-full", self._on_new_file)
        pipeline.add(files)
        pipeline.get_by_name("parser").link(files)

    def _on_new_file(self, _files: Any, _number: int, _sample: Any) -> str:
        self._current = self._naming.new(time.time())
        log.info("recording to %s", self._current)
        return str(self._current)

    def _where(self) -> str:
        return f"recording to {self._naming.folder}"

    def _explain(self, error: Any, debug: str) -> str:
        gst = gstreamer.load()
        if (
            error.matches(gst.ResourceError.quark(), gst.ResourceError.NO_SPACE_LEFT)
            or "No space left" in debug
        ):
            return "the disk is full"
        return super()._explain(error, debug)

    def _closed(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None
        current, self._current = self._current, None
        try:
            if current is not None and (self._last_pts_ns < 0 or current.stat().st_size == 0):
                current.unlink()  # no picture came to be in it
        except OSError:
            pass  # gone with its disk


class _Keeper:
    """Brings to the disk what was written, removes old files, watches the room that is left; in its own thread,
    since a slow disk takes its time."""

    def __init__(self, naming: Naming, settings: FileOutputSettings, current: Any) -> None:
        self._naming, self._settings, self._current = naming, settings, current
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self.problem: str | None = None
        """Why no more may be written."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_AFTER_S):
            self.look_after()

    def look_after(self, least_mb: int = 0) -> None:
        """One round. Does not raise: what cannot be done is the problem."""
        least_mb = max(least_mb, self._settings.min_free_mb)
        settings, folder, current = self._settings, self._naming.folder, self._current()
        try:
            if current is not None and current.exists():
                _to_disk(current)
            if settings.keep_mb or settings.keep_files:
                pieces = self._naming.pieces()
                for piece in too_many(pieces, current, settings.keep_mb * MB, settings.keep_files):
                    piece.path.unlink(missing_ok=True)
                    log.info("removed %s, to keep within outputs.keep_mb and keep_files", piece.path)
            free = free_bytes(folder)
        except OSError as error:
            self.problem = f"{error.strerror or error}: {error.filename or folder}"
            return
        if free < least_mb * MB:
            self.problem = (
                f"only {free / MB:.1f} MB are free on the disk of {folder}, "
                f"outputs.min_free_mb is {settings.min_free_mb}"
            )


def _to_disk(path: Path) -> None:
    """Without this, a power cut takes what the system has not got round to writing: half a minute."""
    for target in (path, path.parent):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
