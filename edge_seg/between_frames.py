"""Work that other threads hand to the frame loop, done between two frames."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # Python 3.10's is not the builtin
from typing import Any, TypeVar

from edge_seg.errors import EdgeSegError

T = TypeVar("T")

PATIENCE_S = 10.0
"""How long a caller waits for the frame loop to come to its work."""

OVERDUE_NS = 1_000_000_000
"""From then on the loop should come to it, even if it has to give up a wait of its own."""


class BetweenFrames:
    """Callers wait; the loop calls `work_off` between two frames and never waits."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._since_ns: int | None = None
        self._closed = False

    def do(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, once the loop has done it. Raises EdgeSegError when the loop does not."""
        future: Future[T] = Future()
        # In this order: told first, a loop that comes in between would find nothing, and not look again.
        self._waiting.put((work, future))
        self._since_ns = self._since_ns or time.monotonic_ns()
        if self._closed:
            self.close()
        try:
            return future.result(PATIENCE_S)
        except FutureTimeout:
            if future.cancel():
                raise EdgeSegError(f"the frame loop did not come to it within {PATIENCE_S:g} s") from None
            return future.result()  # begun in the last moment

    def is_overdue(self) -> bool:
        since_ns = self._since_ns
        return since_ns is not None and time.monotonic_ns() - since_ns > OVERDUE_NS

    def work_off(self) -> None:
        """Does what is there. Called by the loop."""
        if self._since_ns is None:
            return
        self._since_ns = None
        while (item := self._next()) is not None:
            work, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is the caller's, and raised there
                future.set_exception(error)

    def close(self) -> None:
        """The loop has ended: nobody is left waiting for it."""
        self._closed = True
        while (item := self._next()) is not None:
            if item[1].set_running_or_notify_cancel():
                item[1].set_exception(EdgeSegError("the daemon is stopping"))

    def _next(self) -> tuple[Callable[[], Any], Future[Any]] | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None
