"""The owner of the source: opens it, notices when it is lost, lets go of it in time, opens it again, for ever.

A driver can hang in every call, so all of them are made in threads that can be left behind: the source is
opened and read in one of its own, which hands frames on directly, and the supervisor only keeps the time.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from edge_seg.backoff import BackOff
from edge_seg.errors import ConfigError, EdgeSegError, SourceLost
from edge_seg.frame_queue import FrameQueue
from edge_seg.freshness import same
from edge_seg.geometry import Geometry
from edge_seg.source_reader import READ_TIMEOUT_NS, Reader
from edge_seg.sources.base import Source
from edge_seg.sources.bounded import bounded
from edge_seg.types import I420, Frame

log = logging.getLogger(__name__)

OPEN_DEADLINE_S = 60.0
"""Sources have shorter deadlines of their own; this is for a driver that hangs where nobody expected it."""
CLOSE_DEADLINE_S = 2.0
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 10.0
MOST_LEFT_BEHIND = 3
"""Readers that hang in a driver hold memory and perhaps the device: with so many, no more are started."""


class Supervisor:
    """Keeps a source running, and its frames flowing into a queue."""

    def __init__(
        self,
        build: Callable[[], Source],
        queue: FrameQueue[Frame],
        stale_ms: int,
        may_repeat: bool = True,
    ) -> None:
        """`may_repeat`: whether a picture that repeats for `stale_ms` is a picture, not a driver that is stuck."""
        self._build = build
        self._queue = queue
        self._stale_ns = stale_ms * 1_000_000
        self._may_repeat = may_repeat
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._backoff = BackOff(FIRST_RETRY_S, LONGEST_RETRY_S)
        self._next_seq = 0
        self._left_behind: list[Reader] = []
        self._lost_ns: int | None = time.monotonic_ns()
        self._is_first = True
        self._reader: Reader | None = None
        self._is_renewed = False
        """Whether the source that runs is to make way for another."""
        self._stuck_at: I420 | None = None
        """The picture at which a driver got stuck: a reopened source that still shows it is not back."""
        self.break_seq = 0
        """Frames from this number on have nothing to do with those before: their source was opened since, or their
        view is another."""
        self.source: Source | None = None
        """The source that delivers now, None while there is none."""
        self.cause: str | None = None
        """Why there is none, where that is known."""
        self.outages = 0
        """How often a source that had delivered was lost."""
        self.fatal: ConfigError | None = None
        """Set when the source could not be opened for a reason that no retry will mend."""

    @property
    def frames(self) -> int:
        """Frames that sources have captured so far."""
        return self._next_seq

    @property
    def is_alive(self) -> bool:
        """Whether anybody looks after the source."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Asks the thread to end and waits. Returns whether it did."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def renew(self, build: Callable[[], Source], stale_ms: int, may_repeat: bool) -> None:
        """Another source from now on: the one that runs is let go, and the new one opened at once. From any thread.

        Unlike the first, it may be one that cannot be opened: then it is tried for ever.
        """
        with self._changed:
            self._build = build
            self._stale_ns, self._may_repeat = stale_ms * 1_000_000, may_repeat
            self._is_renewed, self._is_first = True, False
            self._changed.notify_all()

    def judge(self, stale_ms: int, may_repeat: bool) -> None:
        """Other terms for when the source counts as lost, while it runs on. From any thread."""
        with self._changed:
            self._stale_ns, self._may_repeat = stale_ms * 1_000_000, may_repeat
            if self._reader is not None:
                self._reader.judge(self._stale_ns, may_repeat)
            self._changed.notify_all()

    def place(self, geometry: Geometry) -> None:
        """The next picture is cropped, turned and mirrored so; the source runs on. From any thread.

        `build` has to give later sources the same geometry.
        """
        with self._changed:
            if self._reader is not None:
                self._reader.geometry = geometry

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                self._is_renewed = False
                reader = self._reader = Reader(
                    self._build(), self._deliver, self._changed, self._stale_ns, self._may_repeat
                )
            reader.thread.start()
            began_ns = time.monotonic_ns()
            cause = self._watch(reader)
            if cause is not None and not self._is_renewed:
                self.cause = str(cause)
            self._let_go(reader)
            if cause is None:
                return
            if self._is_renewed:
                log.info("another source from now on, %s is closed", reader.source.name)
                self._backoff.succeeded()
                self._lost_ns, self._stuck_at = time.monotonic_ns(), None
                gc.collect()
                # Another source may be the way around a driver that hangs, but not again and again.
                self._wait_for_drivers(2 * MOST_LEFT_BEHIND)
                continue
            if reader.is_open:
                # What still refers to the device keeps it open: a camera that is plugged in again meanwhile becomes
                # /dev/video1, and is not found.
                gc.collect()
            if isinstance(cause, ConfigError) and self._is_first:
                self.fatal = cause
                return
            if reader.delivered:
                self._backoff.succeeded()
                self._stuck_at = reader.freshness.stuck_at
                fresh = reader.freshness
                self._lost_ns = fresh.changed_ns if fresh.stuck_at is not None else fresh.last_ns
                self.outages += 1
                log.warning(
                    "source lost, trying again until it is back: %s", cause, extra={"event": "source_lost"}
                )
            elif self._backoff.failures == 0:
                log.warning(
                    "no source yet, trying again until there is one: %s",
                    cause,
                    extra={"event": "source_missing"},
                )
            else:
                log.debug("source still lost: %s", cause)
            tried_s = 0.0 if reader.delivered else (time.monotonic_ns() - began_ns) / 1e9
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping.is_set() or self._is_renewed, self._backoff.pause_s(tried_s)
                )
            self._wait_for_drivers()

    def _watch(self, reader: Reader) -> EdgeSegError | None:
        """Waits until the source is lost and returns why; None when it is time to stop."""
        open_deadline_ns = time.monotonic_ns() + round(OPEN_DEADLINE_S * 1e9)
        with self._changed:
            while not self._stopping.is_set():
                if reader.error is not None:
                    return reader.error
                if self._is_renewed:
                    return SourceLost(f"{reader.source.name}: another source is configured")
                now_ns = time.monotonic_ns()
                if not reader.is_open:
                    wait_ns = open_deadline_ns - now_ns
                    if wait_ns < 0:
                        return SourceLost(
                            f"{reader.source.name}: hangs since {OPEN_DEADLINE_S:g} s while it is opened"
                        )
                else:
                    self.source = reader.source
                    problem = reader.freshness.problem(now_ns)
                    if problem is not None:
                        return SourceLost(f"{reader.source.name}: {problem}")
                    wait_ns = reader.freshness.next_look_ns(now_ns)
                # Often enough to see that a picture has begun to repeat, and then exactly in time.
                self._changed.wait(min(wait_ns, self._stale_ns // 8) / 1e9)
        return None

    def _deliver(self, reader: Reader, frame: Frame, is_other_view: bool) -> None:
        """Called by readers with each frame."""
        with self._changed:
            if reader.is_left:
                return
            if not reader.delivered:
                if self._stuck_at is not None and same(self._stuck_at, frame.picture):
                    return
                self._came_back(reader)
            # Sequence numbers go on over a reopened source: no mask of before can be taken for one of after.
            frame = replace(frame, seq=reader.first_seq + frame.seq)
            if is_other_view:
                self.break_seq = frame.seq
            self._next_seq = frame.seq + 1
            self._queue.put(frame)

    def _came_back(self, reader: Reader) -> None:
        reader.delivered = True
        reader.first_seq = self.break_seq = self._next_seq
        self.source = reader.source
        if not self._is_first and self._lost_ns is not None:
            seconds = (time.monotonic_ns() - self._lost_ns) / 1e9
            log.info(
                "source back after %.1f s: %s", seconds, reader.source.name,
                extra={"event": "source_back", "after_s": round(seconds, 1)},
            )  # fmt: skip
        self._is_first, self._lost_ns, self.cause = False, None, None
        self._stuck_at = None

    def _let_go(self, reader: Reader) -> None:
        with self._changed:
            reader.is_left = True
            self.source = self._reader = None
        if not bounded(reader.source.close, CLOSE_DEADLINE_S):
            log.warning("%s: closing it hangs; it is left behind", reader.source.name)
        reader.thread.join(2 * READ_TIMEOUT_NS / 1e9)
        if reader.thread.is_alive():
            self._left_behind.append(reader)

    def _wait_for_drivers(self, most: int = MOST_LEFT_BEHIND) -> None:
        """While so many readers hang in their drivers: waits for one to come back."""
        has_warned = False
        while not self._stopping.is_set():
            self._left_behind = [reader for reader in self._left_behind if reader.thread.is_alive()]
            if len(self._left_behind) < most:
                return
            if not has_warned:
                log.error(
                    "%s: the driver hangs and does not come back; only unplugging the camera or a restart of the "
                    "machine can help", self._left_behind[-1].source.name,
                )  # fmt: skip
                has_warned = True
            self._stopping.wait(FIRST_RETRY_S)
