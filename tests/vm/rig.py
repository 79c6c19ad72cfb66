"""What the guests' tests have in common: an output that remembers, and the engine around a source."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from edge_seg import slate
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.model_card import ModelSettings
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import SourceSettings
from edge_seg.types import I420

BACKGROUND_LUMA = 235


class Recorder(Sink):
    """An output that keeps what was shown last, and counts."""

    name = "recorder"

    def __init__(self) -> None:
        self.output: OutputFormat | None = None
        self.pictures = 0
        self.slates = 0
        self.background = 0.0

    def open(self, output: OutputFormat) -> None:
        self.output = output

    def reformat(self, output: OutputFormat) -> None:
        self.output = output

    def push(self, picture: I420, captured_ns: int) -> None:
        is_slate = abs(float(np.median(picture.y)) - slate.LUMA) < 2
        self.slates += is_slate
        self.pictures += not is_slate
        if not is_slate:
            self.background = float(np.mean(np.abs(picture.y.astype(int) - BACKGROUND_LUMA) < 3))

    def close(self) -> None:
        pass


def set_up() -> None:
    """The guest has two slow cores, and its console is the report."""
    cv2.setNumThreads(1)
    logging.basicConfig(level="INFO", stream=sys.stdout, format="%(relativeCreated)7d %(name)s: %(message)s")
    logging.getLogger("edge_seg.supervisor").setLevel("DEBUG")


def wait(condition: Callable[[], object], what: str, seconds: float = 120) -> float:
    """Waits, and says how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    took = time.monotonic() - began
    print(f"{what}: {took:.2f} s", flush=True)
    return took


@contextmanager
def playing(source: SourceSettings, frames: int = 20) -> Iterator[Recorder]:
    """The engine with this source before a white background, once so many frames were composited."""
    sink = Recorder()
    config = Config(
        source=source,
        background=BackgroundSettings(type="colour", colour="#ffffff"),
        model=ModelSettings(probe=False),
    )
    engine = Engine(config, sinks=[sink])
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    try:
        wait(lambda: sink.pictures >= frames, f"{frames} composited frames")
        print(f"{sink.output}, {sink.background:.3f} of the picture is background", flush=True)
        yield sink
    finally:
        stop.set()
        thread.join(20)
    print(engine.status(), engine.times.summary(), flush=True)
