"""When to try again what has failed: soon at first, then later and later, and never in step with others."""

from __future__ import annotations

import random

_DOUBLINGS = 10
"""More would only make the number long."""


class BackOff:
    """Exponential, with jitter: many daemons do not return to one server at the same moment."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        """Pauses begin at `first_s` at most and double up to `longest_s` at most; none is less than half of that."""
        self._first_s = first_s
        self._longest_s = longest_s
        self._random = random.Random()
        self.failures = 0
        """In a row, so far."""

    def succeeded(self) -> None:
        """The next failure is the first one again."""
        self.failures = 0

    def pause_s(self, tried_s: float = 0.0) -> float:
        """After one more failure: how long to wait. It counts from try to try: the `tried_s` that this one took are a
        part of it, and what is left is a first pause at least."""
        longest_s = min(self._longest_s, self._first_s * 2.0 ** min(self.failures, _DOUBLINGS))
        self.failures += 1
        pause_s = longest_s * self._random.uniform(0.5, 1.0)
        return float(max(pause_s - tried_s, min(pause_s, self._first_s)))
