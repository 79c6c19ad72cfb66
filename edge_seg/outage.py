"""Whether an output is there, since when it is not, and why; and what the log says of that."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Outage:
    """Notes that one output was opened and lost. An outage ends when the output has run steadily for a while."""

    def __init__(self, name: str, steady_s: float) -> None:
        """`steady_s`: an output that is lost again sooner than this was not back."""
        self._name = name
        self._steady_ns = round(steady_s * 1e9)
        self._opened_ns = 0
        self._lost_ns: int | None = None
        self.cause: str | None = None
        """Why it is not there, or was not; None where it runs steadily, or nothing has failed so far."""
        self.has_run = False
        """Whether it was ever open."""
        self.restarts = 0
        """How often it was lost after it had run."""

    @property
    def lasts(self) -> bool:
        """Whether it is lost, or has not run steadily since."""
        return self._lost_ns is not None

    def opened(self, now_ns: int) -> None:
        self.has_run, self._opened_ns = True, now_ns

    def settle(self, now_ns: int) -> bool:
        """To be called while it is open. Returns whether it runs steadily, which ends the outage."""
        if now_ns - self._opened_ns < self._steady_ns:
            return False
        if self._lost_ns is not None:
            seconds = (self._opened_ns - self._lost_ns) / 1e9
            log.info(
                "output %s back after %.1f s", self._name, seconds,
                extra={"event": "output_back", "output": self._name, "after_s": round(seconds, 1)},
            )  # fmt: skip
        self._lost_ns = self.cause = None
        return True

    def lost(self, cause: Exception, now_ns: int) -> None:
        self.cause = str(cause)
        if self._lost_ns is not None:
            log.debug("output %s still lost: %s", self._name, cause)
            return
        self._lost_ns = now_ns
        if self.has_run:
            self.restarts += 1
            log.warning(
                "output %s lost, trying again until it is back: %s", self._name, cause,
                extra={"event": "output_lost", "output": self._name},
            )  # fmt: skip
        else:
            log.warning(
                "output %s not there yet, trying again until it is: %s", self._name, cause,
                extra={"event": "output_missing", "output": self._name},
            )  # fmt: skip
