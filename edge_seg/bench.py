"""Times every stage on a real clip, the model alone, and a copy of the frame as the physical limit."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_seg.backgrounds import open_background
from edge_seg.config import Config
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.pipeline import Pipeline
from edge_seg.segmenter import open_segmenter
from edge_seg.sources import FileSettings, open_source
from edge_seg.timings import StageTimes, percentiles_ms
from edge_seg.types import I420, Frame, Mask

WARM_UP_FRAMES = 20

CLIP_FRAMES = 30
"""So many pictures of the clip are kept at its own size; they are played forth and back, so that motion is
always that of neighbouring frames."""

FRAME_NS = 33_333_333


@dataclass(frozen=True)
class BenchResult:
    """Durations in nanoseconds, one a frame."""

    runtime: str
    model: str
    size: tuple[int, int]
    invoke_ns: list[int]
    stages: dict[str, tuple[float, ...]]
    """Stage -> p50, p99 in ms."""
    frame_ns: list[int]
    overhead_ns: list[int]
    composite_ns: list[int]
    memcpy_ns: list[int]

    def as_json(self) -> dict[str, Any]:
        invoke, frame = percentiles_ms(self.invoke_ns, 50, 99), percentiles_ms(self.frame_ns, 50, 99)
        (memcpy,) = percentiles_ms(self.memcpy_ns, 50)
        (composite,) = percentiles_ms(self.composite_ns, 50)
        (overhead,) = percentiles_ms(self.overhead_ns, 50)
        return {
            "runtime": self.runtime,
            "size": f"{self.size[0]}x{self.size[1]}",
            "model": {"name": self.model, "invoke_ms": _p50_p99(invoke)},
            "stages": {stage: _p50_p99(values) for stage, values in self.stages.items()},
            "frame_ms": _p50_p99(frame),
            "memcpy_ms": {"p50": round(memcpy, 4)},
            "composite_over_memcpy": round(composite / memcpy, 2),
            "overhead_over_invoke": round(overhead / invoke[0], 3),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }


def _p50_p99(values: tuple[float, ...]) -> dict[str, float]:
    return {"p50": round(values[0], 4), "p99": round(values[1], 4)}


def run(config: Config, clip: Path, size: tuple[int, int], frames: int) -> BenchResult:
    """Sends `frames` frames of the clip, scaled to `size` (width, height), through all stages, one by one."""
    pictures = read_clip(clip, CLIP_FRAMES)
    matrix = pictures[0].matrix
    segmenter = open_segmenter(config.model, size)
    times = StageTimes(kept=frames)
    pipeline = Pipeline(config, segmenter.input_size, times)
    background = open_background(config.background, *size, matrix)
    picture, out = I420.allocate(*size, matrix), I420.allocate(*size, matrix)
    invoke_ns: list[int] = []
    frame_ns: list[int] = []
    overhead_ns: list[int] = []
    memcpy_ns: list[int] = []
    for seq in range(WARM_UP_FRAMES + frames):
        if seq == WARM_UP_FRAMES:
            times.clear()
            for samples in (invoke_ns, frame_ns, overhead_ns, memcpy_ns):
                samples.clear()
        scale(pictures[forth_and_back(seq, len(pictures))], picture)
        started_ns = time.perf_counter_ns()
        np.copyto(out.buffer, picture.buffer)
        memcpy_ns.append(time.perf_counter_ns() - started_ns)

        now_ns = seq * FRAME_NS
        frame = Frame(picture, seq, now_ns)
        started_ns = time.perf_counter_ns()
        small = pipeline.shrink(frame)
        pipeline.track(frame, small)
        model_started_ns = time.perf_counter_ns()
        probability = segmenter.infer(small)
        model_ns = time.perf_counter_ns() - model_started_ns
        pipeline.observe(Mask(probability, seq, seq, now_ns))
        pipeline.render(frame, background, out, now_ns)
        total_ns = time.perf_counter_ns() - started_ns
        times.record("model", model_ns)
        invoke_ns.append(segmenter.invoke_ns)
        frame_ns.append(total_ns)
        overhead_ns.append(total_ns - model_ns)
    background.close()
    return BenchResult(
        runtime=segmenter.runtime_name,
        model=segmenter.name,
        size=size,
        invoke_ns=invoke_ns,
        stages=dict(times.percentiles_ms(50, 99)),
        frame_ns=frame_ns,
        overhead_ns=overhead_ns,
        composite_ns=times.samples_ns("composite"),
        memcpy_ns=memcpy_ns,
    )


def read_clip(clip: Path, count: int) -> list[I420]:
    """Up to `count` pictures from the start of a video, at its own size."""
    if not clip.is_file():
        raise ConfigError(f"no such clip: {clip}; name one with --clip")
    source = open_source(FileSettings(path=str(clip)))
    pictures: list[I420] = []
    try:
        while len(pictures) < count:
            frame = source.read(5_000_000_000)
            if frame is None:
                break
            pictures.append(frame.picture)
    except SourceLost:
        pass  # a short clip
    finally:
        source.close()
    if not pictures:
        raise ConfigError(f"{clip}: no picture could be read")
    return pictures


def scale(picture: I420, out: I420) -> None:
    for source, target in zip(picture.planes, out.planes, strict=True):
        target[:] = cv2.resize(source, (target.shape[1], target.shape[0]), interpolation=cv2.INTER_LINEAR)


def forth_and_back(index: int, count: int) -> int:
    """0, 1, ..., count - 1, count - 2, ..., 1, 0, 1, ..."""
    if count == 1:
        return 0
    phase = index % (2 * (count - 1))
    return min(phase, 2 * (count - 1) - phase)
