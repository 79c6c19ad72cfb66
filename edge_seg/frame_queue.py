"""Between the capture and the frame loop: who writes never waits, what is too old is dropped."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """Hands values from one thread to another, in order; a full queue drops its oldest and counts it.

    With a depth of 1 the reader always gets the newest.
    """

    def __init__(self, depth: int = 1) -> None:
        self._condition = threading.Condition()
        self._values: deque[T] = deque(maxlen=depth)
        self.dropped = 0

    def resize(self, depth: int) -> None:
        """Another depth from now on. What no longer fits is dropped, the oldest first."""
        with self._condition:
            self.dropped += max(0, len(self._values) - depth)
            self._values = deque(self._values, maxlen=depth)

    def __len__(self) -> int:
        return len(self._values)

    def put(self, value: T) -> None:
        with self._condition:
            if len(self._values) == self._values.maxlen:
                self.dropped += 1
            self._values.append(value)
            self._condition.notify()

    def take(self, timeout_s: float) -> T | None:
        """The oldest value kept, waited for at most `timeout_s`. None when there was none."""
        with self._condition:
            self._condition.wait_for(lambda: self._values, timeout_s)
            return self._values.popleft() if self._values else None
