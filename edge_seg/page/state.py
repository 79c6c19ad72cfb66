"""What the page shows of how it goes, as plain data."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from edge_seg import __version__, board
from edge_seg.engine import Engine
from edge_seg.health import unhealthy, unready
from edge_seg.status import Status

RECENT_FRAMES = 60
"""What percentiles on the page are over: some two seconds."""
BOARD_EVERY_S = 2.0
NO_STAGES = ("latency", "mask age")


class BoardReader:
    """Reads the board now and then: some sensors take a millisecond."""

    def __init__(self, read: Callable[[], board.Board] = board.read) -> None:
        self._read = read
        self._found: board.Board | None = None
        self._due_s = 0.0

    def read(self, now_s: float) -> board.Board:
        if self._found is None or now_s >= self._due_s:
            self._found, self._due_s = self._read(), now_s + BOARD_EVERY_S
        return self._found


def describe(engine: Engine, found: board.Board, watchers: int) -> dict[str, Any]:
    """Everything but the controls. Percentiles are in milliseconds, p50 and p99."""
    status, config = engine.status(), engine.config
    now_ns = time.monotonic_ns()
    recent = engine.times.recent_ms(RECENT_FRAMES, 50, 99)
    not_healthy = unhealthy(status, config.source.stale_ms, now_ns)
    return {
        "host": socket.gethostname(),
        "version": __version__,
        "healthy": not_healthy is None,
        "reason": not_healthy or unready(status, config.source.stale_ms, now_ns),
        "frame_rate": status.frame_rate,
        "frames": status.frames_out,
        "dropped": status.frames_dropped,
        "misses": status.misses,
        "budget_ms": config.latency.budget_ms,
        "latency_ms": _pair(recent.get("latency")),
        "mask_age_ms": status.mask_age_ms,
        "stages": [
            {"name": name, "ms": _pair(pair)} for name, pair in recent.items() if name not in NO_STAGES
        ],
        "plan": asdict(status.plan),
        "model": {"name": status.model, "failing": status.model_failing, "runs": status.model_runs},
        "source": {
            "type": config.source.type,
            "name": status.source,
            "cause": status.source_cause,
            "outages": status.source_outages,
        },
        "outputs": _outputs(status),
        "board": asdict(found),
        "watchers": watchers,
    }


def _outputs(status: Status) -> list[dict[str, Any]]:
    keys = ("name", "kind", "state", "cause", "frames", "dropped", "restarts", "viewers", "encoder")
    return [{key: getattr(output, key) for key in keys} for output in status.outputs]


def _pair(values: tuple[float, ...] | None) -> list[float] | None:
    if values is None or any(math.isnan(value) for value in values):
        return None
    return [round(value, 3) for value in values]
