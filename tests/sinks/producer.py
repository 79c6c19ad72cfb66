"""Pictures for a sink that is tested by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.types import I420, Matrix

OUTPUT = OutputFormat(320, 240, Fraction(30), Matrix.BT709)


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.01)


class Producer:
    """Pushes pictures at 30 a second, each of one luma or of noise, and measures how long a push takes."""

    def __init__(self, sink: Sink, output: OutputFormat = OUTPUT, noise: bool = False) -> None:
        self.picture = I420.filled(output.width, output.height, (100, 90, 170))
        if noise:
            self.picture.y[:] = np.random.default_rng(1).integers(16, 236, self.picture.y.shape)
        self._noise = noise
        self.pushes_s: list[float] = []
        self._sink = sink
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1 / 30):
            started = time.monotonic()
            if self._noise:
                self.picture.y[:] = np.roll(self.picture.y, 7777)
            if self._sink.wants_pictures:
                self._sink.push(self.picture, time.monotonic_ns())
            self.pushes_s.append(time.monotonic() - started)
