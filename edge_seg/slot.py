"""One place for the newest value: who writes never waits, who reads never gets an old one."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestSlot(Generic[T]):
    """Hands the newest value from one thread to another; older ones that nobody took are dropped and counted."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._value: T | None = None
        self.dropped = 0

    def put(self, value: T) -> None:
        with self._condition:
            if self._value is not None:
                self.dropped += 1
            self._value = value
            self._condition.notify()

    def take(self, timeout_s: float) -> T | None:
        """The newest value, waited for at most `timeout_s`. None when there was none."""
        with self._condition:
            self._condition.wait_for(lambda: self._value is not None, timeout_s)
            value, self._value = self._value, None
            return value
