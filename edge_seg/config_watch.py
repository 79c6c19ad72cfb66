"""Reads the configuration again when somebody asks for it, or when its file has changed, and has it applied."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edge_seg import config_file
from edge_seg.config import Config
from edge_seg.errors import EdgeSegError
from edge_seg.reload import ReloadReport, fingerprint

log = logging.getLogger(__name__)

POLL_S = 0.5
"""How often the file is looked at. Unlike inotify, this also sees changes on network and overlay file systems, and
files that are replaced, and costs one call."""

SETTLE_NS = 700_000_000
"""A file that changed is read once it has not changed for so long: editors write in several steps."""

STOP_DEADLINE_S = 1.0


class FileWatch:
    """Says when a file has changed and come to rest. The clock is an argument."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._latest = fingerprint(path)
        self._since_ns = 0

    def look(self, now_ns: int) -> bool:
        """Whether there is something new to be read. A file that is not there for a while is no news."""
        print_ = fingerprint(self._path)
        if print_ != self._latest:
            self._latest, self._since_ns = print_, now_ns
        if print_ is None or print_ == self._known or now_ns - self._since_ns < SETTLE_NS:
            return False
        self._known = print_
        return True

    def seen(self) -> None:
        """The file is read now, whatever the reason."""
        self._known = self._latest = fingerprint(self._path)


class Announcer(Protocol):
    """Who is told about a reload while it happens."""

    def reloading(self) -> None: ...

    def reloaded(self, outcome: str) -> None:
        """It is over: what it did, or why it was refused."""


class ConfigWatch:
    """A thread that reloads. Use as a context manager; `ask` is for signal handlers, too."""

    def __init__(
        self,
        path: Path,
        config: Callable[[], Config],
        apply: Callable[[Config], ReloadReport],
        announcer: Announcer | None = None,
    ) -> None:
        """`config` says what is in force now, `apply` puts another one in force or raises EdgeSegError."""
        self._path = path
        self._config = config
        self._apply = apply
        self._announcer = announcer
        self._file = FileWatch(path)
        # Unlike an Event, this may be used by a handler that interrupts itself.
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def ask(self) -> None:
        """Reloads soon. Returns at once."""
        self._asked.put(True)

    def __enter__(self) -> ConfigWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asked.put(False)
        self._thread.join(STOP_DEADLINE_S)

    def _run(self) -> None:
        while True:
            try:
                is_asked = self._asked.get(timeout=POLL_S if self._config().reload.watch else 5.0)
                while is_asked and not self._asked.empty():  # a storm of signals is one request
                    is_asked = self._asked.get()
                if not is_asked:
                    return
            except queue.Empty:
                if not self._config().reload.watch or not self._file.look(time.monotonic_ns()):
                    continue
            self._reload()

    def _reload(self) -> None:
        if self._announcer is not None:
            self._announcer.reloading()
        outcome = "refused: a defect, see the log"
        try:
            self._file.seen()
            outcome = str(self._apply(config_file.load(self._path)))
        except EdgeSegError as error:
            first, *others = str(error).splitlines()
            for line in (first, *others):
                log.error("reload refused, all stays as it was: %s", line)
            outcome = f"refused: {first}" + (f" (and {len(others)} more)" if others else "")
        except Exception:  # a defect of ours must not cost the video, nor the next reload
            log.exception("reload failed")
        finally:
            if self._announcer is not None:
                self._announcer.reloaded(outcome)
