"""One composite to all outputs, each with a thread and a small queue of its own: none can touch another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_seg.errors import EdgeSegError
from edge_seg.output_worker import OutputStatus, OutputWorker, Patience
from edge_seg.picture_pool import PicturePool
from edge_seg.sinks import OutputSettings, open_sink
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.types import I420

log = logging.getLogger(__name__)

PATIENCE = Patience()

__all__ = ["Applied", "FanOut", "OutputStatus", "Outputs", "Patience"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What `Outputs.apply` did, by the names of the outputs."""

    kept: tuple[str, ...]
    """Not touched."""
    changed: tuple[str, ...]
    """Adjusted while they run, or opened anew where they cannot be."""
    opened: tuple[str, ...]
    closed: tuple[str, ...]


class FanOut(Protocol):
    """What hands pictures to the outputs: `Outputs`, or a test's."""

    def reformat(self, output: OutputFormat) -> None:
        """The pictures that follow have this format. The first call opens the outputs."""

    def push(self, picture: I420, captured_ns: int) -> None:
        """Takes one picture, captured at `captured_ns` (monotonic). Never blocks, and copies what it keeps, since
        the next frame is drawn into the same picture."""

    def apply(self, outputs: Sequence[OutputSettings]) -> Applied:
        """From now on these, with the least interruption. Waits for nothing."""

    def tick(self) -> None:
        """Is called often. Raises what ends the daemon."""

    def status(self) -> list[OutputStatus]:
        """How each output goes."""

    def close(self) -> None:
        """Ends the outputs."""


class Outputs:
    """All outputs. `push`, `reformat` and `tick` are for one thread, the rest for any."""

    def __init__(
        self,
        outputs: Sequence[OutputSettings | Sink],
        patience: Patience = PATIENCE,
        build: Callable[[OutputSettings], Sink] = open_sink,
    ) -> None:
        """Of settings, each try makes a sink with `build`; a sink is opened again itself."""
        self._patience = patience
        self._build = build
        self._lock = threading.Lock()
        self._format: OutputFormat | None = None
        self._pool: PicturePool | None = None
        self.copies = 0
        """Pictures copied so far."""
        self._workers: tuple[OutputWorker, ...] = ()
        self._ending: list[OutputWorker] = []
        for one in outputs:
            self._workers += (self._worker(one, may_end_daemon=True),)

    def __len__(self) -> int:
        return len(self._workers)

    def reformat(self, output: OutputFormat) -> None:
        """The pictures that follow have this format. The first call opens the outputs."""
        with self._lock:
            self._format = output
            for worker in self._workers:
                worker.reformat(output)

    def push(self, picture: I420, captured_ns: int) -> None:
        """Hands a picture, captured at `captured_ns` (monotonic), to every output that wants it. Never blocks.

        It is copied once, and not at all while no output wants it.
        """
        takers = [worker for worker in self._workers if worker.wants_pictures]
        if not takers:
            return
        if self._pool is None or not self._pool.fits(picture):
            self._pool = PicturePool(picture.width, picture.height, picture.matrix)
        shared = self._pool.copy(picture)
        self.copies += 1
        for worker in takers:
            worker.offer(shared, captured_ns)

    def tick(self, now_ns: int | None = None) -> None:
        """Looks after outputs that hang. To be called often; `now_ns` is monotonic.

        Raises what an output could not be opened for at the start, when no retry will mend it.
        """
        for worker in self._workers:
            if worker.fatal is not None:
                raise worker.fatal
            worker.look_after(time.monotonic_ns() if now_ns is None else now_ns)

    def apply(self, outputs: Sequence[OutputSettings]) -> Applied:
        """From now on these outputs: those whose settings are the same go on untouched, others of the same kind are
        adjusted or opened anew, what is no longer there is closed. Nothing is waited for."""
        with self._lock:
            there = list(self._workers)
            result: list[OutputWorker | None] = [None] * len(outputs)
            kept, changed = [], []
            for index, settings in enumerate(outputs):
                same = next((worker for worker in there if worker.settings == settings), None)
                if same is not None:
                    there.remove(same)
                    result[index] = same
                    kept.append(same.name)
            for index, settings in enumerate(outputs):
                if result[index] is None:
                    alike = next((one for one in there if type(one.settings) is type(settings)), None)
                    if alike is not None:
                        there.remove(alike)
                        result[index] = alike
                        changed.append(alike.name)
                        alike.change(settings)
            for worker in there:
                worker.end()
            self._ending = [worker for worker in self._ending if not worker.join(0)] + there
            opened = []
            for index, settings in enumerate(outputs):
                if result[index] is None:
                    self._workers = tuple(worker for worker in result if worker is not None)
                    worker = result[index] = self._worker(settings, may_end_daemon=False)
                    opened.append(worker.name)
                    if self._format is not None:
                        worker.reformat(self._format, after=there)
            self._workers = tuple(worker for worker in result if worker is not None)
        return Applied(tuple(kept), tuple(changed), tuple(opened), tuple(worker.name for worker in there))

    def status(self) -> list[OutputStatus]:
        """How each output goes, in the order of the configuration."""
        return [worker.status() for worker in self._workers]

    def close(self) -> None:
        """Ends all outputs, within `Patience.close_s` together. May be called twice."""
        with self._lock:
            workers = [*self._workers, *self._ending]
            for worker in workers:
                worker.end()
        deadline_s = time.monotonic() + self._patience.close_s
        for worker in workers:
            if not worker.join(deadline_s - time.monotonic()):
                log.warning(
                    "output %s did not end within %g s; leaving it", worker.name, self._patience.close_s
                )

    def _worker(self, output: OutputSettings | Sink, may_end_daemon: bool) -> OutputWorker:
        taken = {worker.name for worker in (*self._workers, *self._ending)}

        def build(settings: Any) -> Sink:
            return settings if isinstance(settings, Sink) else self._build(settings)

        return OutputWorker(output, build, self._patience, taken, may_end_daemon)

    @property
    def fatal(self) -> EdgeSegError | None:
        """What `tick` would raise."""
        return next((worker.fatal for worker in self._workers if worker.fatal is not None), None)
