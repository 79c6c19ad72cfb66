"""Live pictures for the page: made only while somebody looks, at most ten a second, once for all who look.

The frame loop is asked for one frame at a time and gives a copy; shrinking and encoding happen in a thread of
lower priority. Where that does not keep up, there are fewer pictures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from edge_seg.page import pictures
from edge_seg.page.pictures import View
from edge_seg.tap import FrameTap, Tapped

MOST_WATCHERS = 4
INTERVAL_S = 0.1
NICENESS = 10


class TooManyWatchers(Exception):
    """MOST_WATCHERS look already."""


class Preview:
    """The newest picture of each view that somebody looks at. Belongs to one event loop."""

    def __init__(self, tap: FrameTap) -> None:
        self._tap = tap
        self._watchers: Counter[View] = Counter()
        self._newest: dict[View, bytes] = {}
        self._number = 0
        """Of the newest picture that is there."""
        self.asked = 0
        """Of the newest picture that was asked for: what has a higher number shows a later frame."""
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._encoder: ThreadPoolExecutor | None = None
        self.is_closed = False
        """There will be no more pictures."""

    @property
    def watchers(self) -> int:
        return sum(self._watchers.values())

    @contextlib.contextmanager
    def watch(self, view: View) -> Iterator[None]:
        """Somebody looks at `view` while this is entered. Raises TooManyWatchers."""
        if self.watchers >= MOST_WATCHERS:
            raise TooManyWatchers
        self._watchers[view] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._produce())
        try:
            yield
        finally:
            self._watchers[view] -= 1

    async def next(self, view: View, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """The first picture of `view` after the one numbered `after` (0: any), with its number; None when none
        comes in time."""
        deadline_s = time.monotonic() + timeout_s
        while self._number <= after or view not in self._newest:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or self.is_closed:
                return None
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._came.wait(), left_s)
        return self._number, self._newest[view]

    async def close(self) -> None:
        """Ends what runs behind it, and the waiting of those who look."""
        self.is_closed = True
        self._came.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._encoder is not None:
            self._encoder.shutdown(wait=False)

    async def _produce(self) -> None:
        """Asks, encodes, tells, while somebody looks."""
        loop = asyncio.get_running_loop()
        self._encoder = self._encoder or ThreadPoolExecutor(1, "preview", initializer=_give_way)
        while self.watchers:
            due_s = time.monotonic() + INTERVAL_S
            views = [view for view, count in self._watchers.items() if count]
            self.asked += 1
            tapped = await self._ask(loop, camera="camera" in views)
            self._newest = await loop.run_in_executor(self._encoder, _encode, tapped, views)
            self._number = self.asked
            self._came.set()
            self._came = asyncio.Event()
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        self._newest = {}

    def _ask(self, loop: asyncio.AbstractEventLoop, *, camera: bool) -> asyncio.Future[Tapped]:
        answer: asyncio.Future[Tapped] = loop.create_future()

        def take(tapped: Tapped) -> None:
            if not answer.done():
                answer.set_result(tapped)

        def hand_over(tapped: Tapped) -> None:  # on the frame loop's thread
            with contextlib.suppress(RuntimeError):  # the page has closed meanwhile
                loop.call_soon_threadsafe(take, tapped)

        self._tap.ask(hand_over, camera=camera)
        return answer


def _encode(tapped: Tapped, views: list[View]) -> dict[View, bytes]:
    return {view: pictures.jpeg(tapped, view) for view in views}


def _give_way() -> None:
    """On Linux each thread has a niceness of its own."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
