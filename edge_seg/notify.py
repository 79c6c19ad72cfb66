"""Tells systemd how it goes: ready, alive, what state, reloading, stopping (sd_notify(3)).

Life is a picture that leaves. The watchdog is fed by nothing else: a loop that turns, a thread that runs prove nothing
to a viewer. While the camera is lost, its card leaves, and counts: viewers are served, the camera is waited for, and a
restart would drop the one and not bring back the other. An output that is being retried is no reason for a restart
either: its owner has deadlines of its own.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from edge_seg.engine import Engine
from edge_seg.output_worker import OutputStatus
from edge_seg.status import Status
from edge_seg.timings import percentiles_ms

log = logging.getLogger(__name__)

LOOK_S = 0.5
STATUS_EVERY_NS = 5_000_000_000
"""How often the status line is renewed while nothing but figures change."""
EXTEND_EVERY_NS = 5_000_000_000
EXTEND_US = 60_000_000
"""While the first frame is waited for, the start may go on for so long at a time (TimeoutStartSec= is for a start that
hangs, not for a camera that is plugged in tomorrow)."""
LONGEST_TEXT = 400
STOP_DEADLINE_S = 1.0


class Socket:
    """systemd's end of the conversation. Without one, nothing is sent."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(1)
        self.watchdog_s = _watchdog_s(environment) if address else None
        """How often it wants to hear WATCHDOG=1; None: never."""

    @property
    def is_there(self) -> bool:
        return self._socket is not None

    def send(self, *lines: str) -> None:
        """One message. A lost one is not worth an error: the next comes soon."""
        if self._socket is None or not lines:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.debug("systemd does not listen: %s", error)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdigit() or int(text) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(text) / 1e6


class Vitals:
    """What there is to say, from one look at the engine to the next. The clock is an argument."""

    def __init__(self) -> None:
        self.is_ready = False
        self.note = ""
        """About the last reload."""
        self._first_ns: int | None = None
        self._left_ns: int | None = None
        self._taken_ns: dict[str, int | None] = {}
        self._next_status_ns = self._next_extend_ns = 0
        self._said: tuple[object, ...] = ()

    def look(self, status: Status, latency_ms: tuple[float, float], now_ns: int) -> list[str]:
        """The lines to send. `latency_ms` is (p50, p99) of the newest frames, NaN without any."""
        lines = []
        is_alive = self._is_alive(status)
        if not self.is_ready and self._has_left(status):
            self.is_ready = True
            lines.append("READY=1")
        if self.is_ready and is_alive:
            lines.append("WATCHDOG=1")
        if not self.is_ready and is_alive and now_ns >= self._next_extend_ns:
            self._next_extend_ns = now_ns + EXTEND_EVERY_NS
            lines.append(f"EXTEND_TIMEOUT_USEC={EXTEND_US}")
        states = tuple(one.state for one in status.outputs)
        said = (status.source, status.source_cause, status.frames_out > 0, states, self.note)
        if said != self._said or now_ns >= self._next_status_ns:
            self._said, self._next_status_ns = said, now_ns + STATUS_EVERY_NS
            lines.append("STATUS=" + self.text(status, latency_ms))
        return lines

    def text(self, status: Status, latency_ms: tuple[float, float]) -> str:
        """The status line."""
        parts = []
        if status.source is not None and status.frames_out:
            p50, p99 = latency_ms
            parts.append(f"{status.frame_rate:.1f} fps, latency {p50:.0f}/{p99:.0f} ms (p50/p99)")
            parts.append(f"source {status.source}")
        else:
            cause = status.source_cause or "opening it"
            parts.append(f"{'source lost' if status.frames_out else 'no source yet'}, trying again: {cause}")
        parts += [_output_text(one) for one in status.outputs]
        if status.model_failing:
            parts.append("the model fails, only the background is shown")
        if self.note:
            parts.append(self.note)
        return "; ".join(parts).replace("\n", " ")[:LONGEST_TEXT]

    def _has_left(self, status: Status) -> bool:
        """Whether a composited frame, not a card, is out: taken by an output, or there for whoever comes."""
        if status.shown_ns is None:
            return False
        if self._first_ns is None:
            self._first_ns = status.shown_ns
        return any(
            one.state == "running"
            and (one.idle or (one.last_left_ns is not None and one.last_left_ns >= self._first_ns))
            for one in status.outputs
        )

    def _is_alive(self, status: Status) -> bool:
        """Whether a picture has left since the last look."""
        has_left = status.left_ns is not None and status.left_ns != self._left_ns
        self._left_ns = status.left_ns
        is_served = False
        for one in status.outputs:
            took = one.last_left_ns is not None and one.last_left_ns != self._taken_ns.get(one.name)
            self._taken_ns[one.name] = one.last_left_ns
            # One that nobody watches wants no pictures; one that starts or is retried is not to be waited for.
            is_served = is_served or took or one.idle or one.state != "running"
        return has_left and is_served


def _output_text(output: OutputStatus) -> str:
    if output.state == "retrying":
        return f"output {output.name} lost, trying again: {output.cause}"
    if output.state == "starting":
        return f"output {output.name} is starting"
    if output.viewers is None:
        return f"output {output.name}" + (": nobody watches" if output.idle else "")
    return f"output {output.name}: {output.viewers} viewer{'' if output.viewers == 1 else 's'}"


class Notifier:
    """A thread that keeps systemd informed. Use as a context manager, around the engine's run."""

    def __init__(
        self,
        engine: Engine,
        stop: threading.Event,
        connection: Socket | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`stop` is what ends the engine: it is announced as soon as it is set."""
        self._engine = engine
        self._stop = stop
        self._connection = connection or Socket()
        self._clock = clock
        self._vitals = Vitals()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def __enter__(self) -> Notifier:
        if self._connection.is_there:
            self._check_patience()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._connection.is_there:
            self._thread.join(STOP_DEADLINE_S)
        self._connection.close()

    def reloading(self) -> None:
        if self._vitals.is_ready:
            self._connection.send("RELOADING=1", f"MONOTONIC_USEC={self._clock() // 1000}")

    def reloaded(self, outcome: str) -> None:
        """Says that a reload is over. It cannot make ready what was not."""
        self._vitals.note = f"reload at {time.strftime('%H:%M:%S')} {outcome}"
        self._check_patience()
        if self._vitals.is_ready:
            self._connection.send("READY=1", "STATUS=" + self._vitals.text(*self._look()))

    def _run(self) -> None:
        watchdog_s = self._connection.watchdog_s
        interval_s = LOOK_S if watchdog_s is None else min(LOOK_S, watchdog_s / 4)
        while not self._stop.wait(interval_s):
            self._connection.send(*self._vitals.look(*self._look(), self._clock()))
        self._connection.send("STOPPING=1", "STATUS=stopping")

    def _look(self) -> tuple[Status, tuple[float, float]]:
        p50, p99 = percentiles_ms(self._engine.times.samples_ns("latency"), 50, 99)
        return self._engine.status(), (p50, p99)

    def _check_patience(self) -> None:
        """A camera that may stand still for longer than the watchdog waits would have the daemon killed."""
        watchdog_s, stale_s = self._connection.watchdog_s, self._engine.config.source.stale_ms / 1000
        if watchdog_s is not None and stale_s + 1 > watchdog_s:
            log.warning(
                "source.stale_ms is %g s, the watchdog waits %g s: a silent camera would be taken for a daemon that "
                "hangs; set a larger WatchdogSec= (systemctl edit edge-seg)",
                stale_s, watchdog_s,
            )  # fmt: skip
