"""Where log records go, and in which form: text for people, JSON lines, or the journal's fields.

What is logged are transitions; what happens on every frame is counted (telemetry). A record may carry fields,
`log.warning("source lost: %s", cause, extra={"event": "source_lost"})`, which JSON and the journal keep apart.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from typing import Any, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "text", "json", "journal"]

IDENTIFIER = "edge-seg"

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Of syslog, as the journal wants them."""
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""What every record has: all else are fields."""


@dataclass(frozen=True)
class LogSettings:
    """What is logged, and how."""

    level: Level = "info"
    format: Format = "auto"
    """auto: journal where standard error is the journal's, else text. text: lines for people. json: an object a
    line. journal: the journal's own fields."""


def start(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Sends everything that is logged from now on to `stream` (standard error), in the form that was asked for.

    Threads that die of a defect are logged, too, where lines are more than text.
    """
    stream = sys.stderr if stream is None else stream
    chosen = settings.format
    if chosen == "auto":
        chosen = "journal" if is_journal(stream) else "text"
    handler: logging.Handler = logging.StreamHandler(stream)
    if chosen == "journal":
        handler = _journal(stream)
    elif chosen == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter(_TEXT))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    if chosen != "text":
        threading.excepthook = _log_thread_death
        sys.excepthook = _log_death


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `stream` goes to the journal: systemd tells device and inode of what it connected."""
    try:
        device, inode = environment.get("JOURNAL_STREAM", "").split(":")
        found = os.fstat(stream.fileno())
        return (int(device), int(inode)) == (found.st_dev, found.st_ino)
    except (ValueError, OSError):
        return False


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`."""
    return {name: value for name, value in record.__dict__.items() if name not in _PLAIN}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the fields, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class PrefixFormatter(logging.Formatter):
    """Lines that begin with `<4>`, from which the journal and syslog read the priority."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{priority(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JournalHandler(logging.Handler):
    """Hands records to the journal by its own protocol, each field by itself (python3-systemd)."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {name.upper(): str(value) for name, value in fields_of(record).items()}
            self._send(
                self.format(record),
                **fields,
                PRIORITY=str(priority(record.levelno)),
                SYSLOG_IDENTIFIER=IDENTIFIER,
                LOGGER=record.name,
                THREAD_NAME=record.threadName or "",
                CODE_FILE=record.pathname,
                CODE_LINE=record.lineno,
                CODE_FUNC=record.funcName or "",
            )
        except (OSError, ValueError):
            self.handleError(record)


def priority(level: int) -> int:
    """syslog's priority for one of logging's levels."""
    return next((_PRIORITIES[known] for known in sorted(_PRIORITIES, reverse=True) if level >= known), 7)


def _journal(stream: TextIO) -> logging.Handler:
    """With python3-systemd each field by itself; without it, lines with their priority."""
    try:
        journal = import_module("systemd.journal")  # not `import`: our folder systemd/ has that name, too
    except ImportError:
        handler: logging.Handler = logging.StreamHandler(stream)
        handler.setFormatter(PrefixFormatter("%(name)s: %(message)s"))
        return handler
    return JournalHandler(journal.send)


def _log_thread_death(what: threading.ExceptHookArgs) -> None:
    name = "?" if what.thread is None else what.thread.name
    if what.exc_value is not None:
        found = (what.exc_type, what.exc_value, what.exc_traceback)
        logging.getLogger(__name__).critical("thread %s died of a defect", name, exc_info=found)


def _log_death(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    logging.getLogger(__name__).critical("died of a defect", exc_info=(kind, error, trace))
