"""The owner of one output: opens it, feeds it, notices when it is lost, opens it again, for ever.

A driver, a disk or a server can hang in every call, so all of them are made in a thread that can be left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Literal

from edge_seg.backoff import BackOff
from edge_seg.errors import EdgeSegError, SinkError
from edge_seg.outage import Outage
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.types import I420

log = logging.getLogger(__name__)

State = Literal["starting", "running", "retrying"]

MOST_LEFT_BEHIND = 3
"""Threads that hang hold memory and perhaps a device: with so many, no more are started."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an output may take for what, in seconds, and how soon it is tried again."""

    open_s: float = 60.0
    """Outputs have shorter deadlines of their own; this is for what hangs where nobody expected it."""
    push_s: float = 10.0
    close_s: float = 3.0
    first_retry_s: float = 0.5
    longest_retry_s: float = 30.0
    steady_s: float = 2.0
    """An output that is lost again sooner than this was not back."""


@dataclass(frozen=True, slots=True)
class OutputStatus:
    """How one output goes."""

    name: str
    kind: str
    state: State
    cause: str | None
    """Why it is not running, where that is known."""
    frames: int
    """Pictures that it took."""
    dropped: int
    """Pictures that it was too slow for."""
    restarts: int
    """How often it was lost after it had run."""
    last_left_ns: int | None
    """When it last took a picture, monotonic."""
    viewers: int | None
    encoder: str | None
    idle: bool = False
    """Whether it runs, and wants no pictures now: nobody watches."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    picture: I420
    captured_ns: int
    output: OutputFormat


class _Life:
    """One thread's time with the output, from its start until it ends or is left behind."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.sink: Sink | None = None
        """The sink while it is open."""
        self.is_left = False
        self.is_over = False
        self.busy: tuple[str, int, float] | None = None
        """What it does now, since when (monotonic ns), and how many seconds it may."""

    def begin(self, what: str, limit_s: float) -> None:
        self.busy = (what, time.monotonic_ns(), limit_s)

    def overdue(self, now_ns: int) -> str | None:
        """What it hangs in; None while it does not."""
        busy = self.busy
        if busy is None or now_ns - busy[1] <= busy[2] * 1e9:
            return None
        return f"hangs since {busy[2]:g} s in {busy[0]}"


class OutputWorker:
    """Keeps one output running. Nothing here blocks, except in the thread of its own."""

    def __init__(
        self,
        settings: Any,
        build: Callable[[Any], Sink],
        patience: Patience,
        taken: Collection[str] = (),
        may_end_daemon: bool = True,
    ) -> None:
        """`build` makes a sink of the settings. `taken`: the names of other outputs. `may_end_daemon`: whether a
        permanent error at the first opening is `fatal`."""
        self.settings = settings
        self.fatal: EdgeSegError | None = None
        """Why it could not be opened at the start, when no retry will mend it."""
        first = build(settings)
        self.kind = first.name
        names = chain([self.kind], (f"{self.kind}-{number}" for number in count(2)))
        self.name = next(name for name in names if name not in taken)
        self._first: Sink | None = first
        self._build = build
        self._patience = patience
        self._may_end_daemon = may_end_daemon
        self._changed = threading.Condition()
        self._queue: deque[_Delivery] = deque(maxlen=first.depth)
        self._output: OutputFormat | None = None
        self._is_ending = False
        self._has_new_settings = False
        self._life: _Life | None = None
        self._left_behind: list[_Life] = []
        self._backoff = BackOff(
            patience.first_retry_s, min(patience.longest_retry_s, first.retry_s or patience.longest_retry_s)
        )
        self._outage = Outage(self.name, patience.steady_s)
        self._frames = self._dropped = 0
        self._last_left_ns: int | None = None

    # What others call, from any thread.

    def reformat(self, output: OutputFormat, after: Sequence[OutputWorker] = ()) -> None:
        """Pictures have this format from now on. The first call opens the output, once `after` have ended."""
        with self._changed:
            self._output = output
            if self._life is None and not self._is_ending:
                self._start(0.0, after)
            self._changed.notify_all()

    @property
    def wants_pictures(self) -> bool:
        """Whether a picture that is offered now is of use."""
        life = self._life
        sink = life.sink if life is not None else None
        return sink is not None and sink.wants_pictures

    def offer(self, picture: I420, captured_ns: int) -> None:
        """Puts a picture, which nobody changes any more, in its queue."""
        with self._changed:
            if self._output is None or self._life is None or self._life.sink is None:
                return
            if len(self._queue) == self._queue.maxlen:
                self._dropped += 1
            self._queue.append(_Delivery(picture, captured_ns, self._output))
            self._changed.notify_all()

    def change(self, settings: Any) -> None:
        """Other settings of the same kind: adjusted while it runs where the sink can, else it is opened anew."""
        with self._changed:
            self.settings, self._first = settings, None
            self._has_new_settings = True
            self._changed.notify_all()

    def look_after(self, now_ns: int) -> None:
        """Leaves behind a thread that hangs, replaces one that is gone. To be called now and then."""
        life = self._life
        if life is None or life.is_over or self._is_ending:
            return
        assert life.thread is not None
        problem = life.overdue(now_ns)
        if problem is None and life.thread.is_alive():
            return
        with self._changed:
            if not life.is_left:
                life.is_left = True
                life.sink = None
                # A defect of ours: its traceback goes to standard error, the output comes back.
                self._lose(SinkError(f"{self.kind}: {problem or 'ended unexpectedly'}"))
                self._left_behind.append(life)
            self._left_behind = [one for one in self._left_behind if one.thread and one.thread.is_alive()]
            if len(self._left_behind) < MOST_LEFT_BEHIND:
                self._start(self._backoff.pause_s())

    def end(self) -> None:
        """Asks it to close and to end."""
        with self._changed:
            self._is_ending = True
            self._queue.clear()
            self._changed.notify_all()

    def join(self, deadline_s: float) -> bool:
        """Waits until it has ended. Returns whether it has."""
        life = self._life
        if life is None or life.thread is None:
            return True
        life.thread.join(max(0.0, deadline_s))
        return not life.thread.is_alive()

    def status(self) -> OutputStatus:
        with self._changed:
            sink = self._life.sink if self._life is not None else None
            state: State = "running" if sink is not None else "retrying" if self._outage.cause else "starting"
            return OutputStatus(
                self.name, self.kind, state, None if sink is not None else self._outage.cause, self._frames,
                self._dropped, self._outage.restarts, self._last_left_ns,
                sink.viewers if sink is not None else None,
                sink.encoder if sink is not None else None,
                idle=sink is not None and not sink.wants_pictures,
            )  # fmt: skip

    # What happens in the thread.

    def _start(self, pause_s: float, after: Sequence[OutputWorker] = ()) -> None:
        life = self._life = _Life()
        life.thread = threading.Thread(
            target=self._run, args=(life, pause_s, after), name=f"output {self.name}", daemon=True
        )
        life.thread.start()

    def _run(self, life: _Life, pause_s: float, after: Sequence[OutputWorker]) -> None:
        for other in after:
            other.join(self._patience.close_s)
        while self._rest(life, pause_s):
            with self._changed:
                self._has_new_settings = False
                settings = self.settings
            sink, self._first = self._first or self._build(settings), None
            cause = self._serve(life, sink)
            with self._changed:
                if life.is_left:
                    cause = None
                life.sink = None
                if cause is not None:
                    self._lose(cause)
            life.begin("closing", self._patience.close_s)
            try:
                sink.close()
            except EdgeSegError as error:
                log.warning("output %s: %s", self.name, error)
            life.busy = None
            if self.fatal is not None:
                break
            pause_s = self._backoff.pause_s() if cause is not None else 0.0
        life.is_over = True

    def _rest(self, life: _Life, pause_s: float) -> bool:
        """Waits before the next try, unless there is news. Returns whether there is to be one."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_ending or life.is_left or self._has_new_settings, timeout=pause_s
            )
            return not (self._is_ending or life.is_left)

    def _serve(self, life: _Life, sink: Sink) -> EdgeSegError | None:
        """The sink from its opening until it is lost (returns why), or is to be closed (returns None)."""
        output = self._output
        assert output is not None
        try:
            life.begin("opening", self._patience.open_s)
            sink.open(output)
            with self._changed:
                if life.is_left:
                    return None
                self._queue = deque(maxlen=sink.depth)
                life.busy, life.sink = None, sink
                self._outage.opened(time.monotonic_ns())
            while (work := self._next(life, output)) is not None:
                life.begin("taking a picture", self._patience.push_s)
                if isinstance(work, OutputFormat):
                    output = work
                    sink.reformat(output)
                elif isinstance(work, _Delivery):
                    sink.push(work.picture, work.captured_ns)
                    self._taken(life)
                elif not sink.adjust(self.settings):
                    return None  # to be opened anew
                work, life.busy = None, None
        except EdgeSegError as error:
            # Without its traceback, whose frames refer to the sink and its device in a circle.
            error.__context__ = error.__cause__ = None
            return error.with_traceback(None)
        return None

    def _next(self, life: _Life, output: OutputFormat) -> _Delivery | OutputFormat | str | None:
        """What is to be done next: a picture, a format before it, or "adjust". None: close."""
        with self._changed:
            self._settle()
            while not (self._is_ending or life.is_left):
                if self._has_new_settings:
                    self._has_new_settings = False
                    return "adjust"
                if self._queue:
                    if self._queue[0].output != output:
                        return self._queue[0].output
                    return self._queue.popleft()
                if self._output is not None and self._output != output:
                    return self._output
                self._changed.wait(self._patience.steady_s if self._outage.lasts else None)
                self._settle()
            return None

    def _taken(self, life: _Life) -> None:
        with self._changed:
            if not life.is_left:
                self._frames += 1
                self._last_left_ns = time.monotonic_ns()

    def _settle(self) -> None:
        if self._outage.settle(time.monotonic_ns()):
            self._backoff.succeeded()

    def _lose(self, cause: EdgeSegError) -> None:
        self._queue.clear()
        if not self._outage.has_run and self._may_end_daemon and getattr(cause, "permanent", True):
            self.fatal, self._outage.cause = cause, str(cause)
        else:
            self._outage.lost(cause, time.monotonic_ns())
