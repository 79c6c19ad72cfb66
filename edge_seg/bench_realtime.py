"""The whole engine at the rate of a camera, its outputs replaced by one that counts, the model as slow as asked."""

from __future__ import annotations

import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.bench import CLIP_FRAMES, forth_and_back, read_clip, scale
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.pyramid import Yuv444
from edge_seg.segmenter import Segmenter, open_segmenter
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import SourceFormat
from edge_seg.timings import percentiles_ms
from edge_seg.types import F32, I420, Frame

FPS = 30
WARM_UP_S = 1.0


class ClipSource:
    """Pictures held in memory, delivered by the clock, each stamped with the moment it was due."""

    name = "clip"
    live = True

    def __init__(self, pictures: list[I420], fps: int = FPS) -> None:
        first = pictures[0]
        self.format = SourceFormat(first.width, first.height, Fraction(fps), first.matrix)
        self._pictures = pictures
        self._interval_ns = 1_000_000_000 // fps
        self._seq = 0

    def open(self) -> None:
        self._start_ns = time.monotonic_ns()

    def read(self, timeout_ns: int) -> Frame | None:
        due_ns = self._start_ns + self._seq * self._interval_ns
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > timeout_ns:
            time.sleep(timeout_ns / 1e9)
            return None
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        picture = self._pictures[forth_and_back(self._seq, len(self._pictures))]
        self._seq += 1
        return Frame(picture, self._seq - 1, due_ns)

    def close(self) -> None:
        pass


class SlowModel:
    """The real model, and then an honest sleep: what another, slower machine's model would take."""

    def __init__(self, segmenter: Segmenter, delay_ms: float) -> None:
        self.name, self.runtime_name = segmenter.name, segmenter.runtime_name
        self.input_size = segmenter.input_size
        self._segmenter = segmenter
        self._delay_s = delay_ms / 1000

    def infer(self, small: Yuv444) -> F32:
        probability = self._segmenter.infer(small)
        time.sleep(self._delay_s)
        return probability


class NullSink(Sink):
    """Takes every picture and does nothing with it."""

    name = "null"

    def open(self, output: OutputFormat) -> None:
        pass

    def reformat(self, output: OutputFormat) -> None:
        pass

    def push(self, picture: I420, captured_ns: int) -> None:
        pass

    def close(self) -> None:
        pass


def run(
    config: Config, clip: Path, size: tuple[int, int], seconds: float, model_delay_ms: float
) -> dict[str, Any]:
    """Runs for `seconds` at 30 frames a second. Returns the `realtime` object of the bench's JSON."""
    pictures = []
    for picture in read_clip(clip, CLIP_FRAMES):
        pictures.append(I420.allocate(*size, picture.matrix))
        scale(picture, pictures[-1])

    def build_model(picture_size: tuple[int, int]) -> SlowModel:
        return SlowModel(open_segmenter(config.model, picture_size), model_delay_ms)

    engine = Engine(
        config, sinks=[NullSink()], build_source=lambda: ClipSource(pictures), build_model=build_model
    )
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    time.sleep(WARM_UP_S)
    before, started_ns = engine.status(), time.monotonic_ns()
    engine.times.clear()
    stop.wait(seconds)
    after, took_s = engine.status(), (time.monotonic_ns() - started_ns) / 1e9
    latency_ns = engine.times.samples_ns("latency")
    ages_ns = engine.times.samples_ns("mask age")
    stop.set()
    thread.join()
    return {
        "model_delay_ms": model_delay_ms,
        "seconds": round(took_s, 1),
        "fps_in": round((after.frames_captured - before.frames_captured) / took_s, 2),
        "fps_out": round((after.frames_out - before.frames_out) / took_s, 2),
        "latency_ms": _spread(latency_ns),
        "misses": after.misses - before.misses,
        "mask_age_ms": _spread(ages_ns),
        "model_fps": round((after.model_runs - before.model_runs) / took_s, 2),
        "budget_ms": config.latency.budget_ms,
        "frames_dropped": after.frames_dropped - before.frames_dropped,
        "plan": str(after.plan),
    }


def _spread(samples_ns: list[int]) -> dict[str, float]:
    p50, p99 = percentiles_ms(samples_ns, 50, 99)
    largest = float(np.max(samples_ns)) / 1e6 if samples_ns else float("nan")
    return {"p50": round(p50, 2), "p99": round(p99, 2), "max": round(largest, 2)}
