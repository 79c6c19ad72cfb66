"""The owner of the source: opens it, notices when it is lost, opens it again, for ever."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from edge_seg.errors import ConfigError, EdgeSegError, SourceLost
from edge_seg.frame_queue import FrameQueue
from edge_seg.sources.base import Source
from edge_seg.types import Frame

log = logging.getLogger(__name__)

READ_TIMEOUT_NS = 100_000_000
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 10.0


class Capture:
    """Reads a source in a thread of its own into a queue."""

    def __init__(self, build: Callable[[], Source], queue: FrameQueue[Frame], stale_ms: int) -> None:
        self._build = build
        self._queue = queue
        self._stale_ns = stale_ms * 1_000_000
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._next_seq = 0
        self._ever_opened = False
        self._random = random.Random()
        self.source: Source | None = None
        """The source that delivers now, None while there is none."""
        self.fatal: ConfigError | None = None
        """Set when the source could not be opened for a reason that no retry will mend."""

    @property
    def frames(self) -> int:
        """Frames that sources have captured so far."""
        return self._next_seq

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Asks the thread to end and waits. Returns whether it did."""
        self._stopping.set()
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            source = self._build()
            frames_before = self._next_seq
            try:
                self._read(source)
            except ConfigError as error:
                if not self._ever_opened:
                    self.fatal = error
                    return
                cause: EdgeSegError = error
            except SourceLost as error:
                cause = error
            else:
                return
            finally:
                self.source = None
                source.close()
            if self._next_seq > frames_before:
                attempt = 0
            if attempt == 0:
                log.warning("source lost, trying again until it is back: %s", cause)
            self._stopping.wait(self._pause_s(attempt))
            attempt += 1

    def _read(self, source: Source) -> None:
        """Reads until told to stop. Raises SourceLost or ConfigError."""
        source.open()
        self.source = source
        if self._ever_opened:
            log.info("source back: %s", source.name)
        self._ever_opened = True
        first_seq = self._next_seq
        last_ns = time.monotonic_ns()
        while not self._stopping.is_set():
            frame = source.read(READ_TIMEOUT_NS)
            now_ns = time.monotonic_ns()
            if frame is not None:
                last_ns = now_ns
                # Sequence numbers go on over a reopened source: no mask of before can be taken for one of after.
                frame = replace(frame, seq=first_seq + frame.seq)
                self._next_seq = frame.seq + 1
                self._queue.put(frame)
            elif now_ns - last_ns > self._stale_ns:
                raise SourceLost(f"{source.name}: no frame for {(now_ns - last_ns) / 1e6:.0f} ms")

    def _pause_s(self, attempt: int) -> float:
        """Exponential back-off with jitter, so that many daemons do not return to one server in step."""
        longest = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempt, 10))
        return float(longest * self._random.uniform(0.5, 1.0))
