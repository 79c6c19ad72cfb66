"""A viewer who notes what is to be seen, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import av
import numpy as np

from edge_seg import slate
from edge_seg.sources import timecode
from tests.e2e.daemon import watch


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture that the viewer got."""

    at: float
    """time.monotonic, seconds."""
    seq: int | None
    """The source's own number in it; None where there is no readable one."""
    is_slate: bool
    size: tuple[int, int]


class Viewer:
    """Watches in a thread of its own, from one connection that is never renewed. Use as a context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._changed = threading.Condition()
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[Seen] = []
        self.is_connected = False

    def __enter__(self) -> Viewer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop = True
        self._thread.join(40)

    def wait_for(self, wanted: Callable[[Seen], bool], timeout_s: float = 15, since: float = 0.0) -> Seen:
        """The first picture, at or after `since`, that is as wanted."""

        def found() -> Seen | None:
            return next((seen for seen in self.seen if seen.at >= since and wanted(seen)), None)

        with self._changed:
            self._changed.wait_for(found, timeout_s)
            match = found()
        assert match is not None, f"not seen within {timeout_s} s; last: {self.seen[-5:]}"
        return match

    def _run(self) -> None:
        container = watch(self._url)
        self.is_connected = True
        try:
            for frame in container.decode(video=0):
                seen = _look(frame)
                with self._changed:
                    self.seen.append(seen)
                    self._changed.notify_all()
                if self._stop:
                    break
        except av.error.FFmpegError:
            pass
        finally:
            self.is_connected = False
            container.close()


def _look(frame: av.VideoFrame) -> Seen:
    at = time.monotonic()
    luma = np.ascontiguousarray(frame.to_ndarray(format="yuv420p")[: frame.height, : frame.width])
    border = luma[: frame.height // 8]
    is_slate = abs(float(np.median(border)) - slate.LUMA) < 3 and float(border.std()) < 3
    code = None if is_slate else timecode.read_code(luma)
    return Seen(at, code.seq if code else None, is_slate, (frame.width, frame.height))


def is_live(seen: Seen) -> bool:
    return seen.seq is not None


def is_slate(seen: Seen) -> bool:
    return seen.is_slate
