"""How long the stages of a frame take: recorded on every frame, summarised on request."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

KEPT = 4096
"""Samples kept per stage: a little over two minutes at 30 frames a second."""

NS_PER_MS = 1e6

BOUNDS_NS = tuple(
    round(ms * NS_PER_MS)
    for ms in (0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 200, 500, 1000, 2000)
)
"""Upper bounds of the histograms' buckets: from a stage on a small picture to a mask that is given up."""

STOPPED_NS = 2_000_000_000
"""Without a frame for so long, the rate is none."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often durations fell into each bucket since the start."""

    counts: tuple[int, ...]
    """One for each of BOUNDS_NS (at most that long), and one for what was longer."""
    sum_ns: int


class _Series:
    """What is known of one stage. As a with block it adds the time that the block took, also when it raises."""

    __slots__ = ("_started_ns", "counts", "samples", "sum_ns")

    def __init__(self, kept: int) -> None:
        self.samples: deque[int] = deque(maxlen=kept)
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.sum_ns = 0

    def add(self, duration_ns: int) -> None:
        self.samples.append(duration_ns)
        self.counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.sum_ns += duration_ns

    def __enter__(self) -> None:
        self._started_ns = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        self.add(perf_counter_ns() - self._started_ns)


class StageTimes:
    """Durations of named stages. One writer a stage; readers may call at any time."""

    def __init__(self, kept: int = KEPT) -> None:
        # Half a microsecond a duration, some ten times a frame: the frame loop pays no lock and no allocation.
        self._series: defaultdict[str, _Series] = defaultdict(lambda: _Series(kept))

    def record(self, stage: str, duration_ns: int) -> None:
        self._series[stage].add(duration_ns)

    def measure(self, stage: str) -> AbstractContextManager[None]:
        """Records the time spent in the block, also when it raises. Not to be entered again before it ends."""
        return self._series[stage]

    def clear(self) -> None:
        self._series.clear()

    def percentiles_ms(self, *percents: float) -> Mapping[str, tuple[float, ...]]:
        """Stage -> its percentiles (0 to 100) in milliseconds, in the order the stages first ran."""
        return {stage: percentiles_ms(list(series.samples), *percents) for stage, series in self._ran()}

    def recent_ms(self, newest: int, *percents: float) -> Mapping[str, tuple[float, ...]]:
        """The same of the newest so many samples of each stage."""
        return {
            stage: percentiles_ms(list(series.samples)[-newest:], *percents) for stage, series in self._ran()
        }

    def histograms(self) -> Mapping[str, Histogram]:
        """Stage -> how its durations were spread since the start, in the order the stages first ran."""
        return {stage: Histogram(tuple(series.counts), series.sum_ns) for stage, series in self._ran()}

    def _ran(self) -> list[tuple[str, _Series]]:
        """The stages that have ended at least once."""
        return [(stage, series) for stage, series in list(self._series.items()) if series.samples]

    def samples_ns(self, stage: str) -> list[int]:
        """The kept samples of one stage, oldest first."""
        series = self._series.get(stage)
        return [] if series is None else list(series.samples)

    def summary(self) -> str:
        """One line for the log: `stage p50/p99 ms`, stage by stage."""
        return ", ".join(
            f"{stage} {p50:.2f}/{p99:.2f}" for stage, (p50, p99) in self.percentiles_ms(50, 99).items()
        )


class FrameRate:
    """Frames a second over the newest few. The clock is an argument; one writer."""

    def __init__(self, frames: int = 60) -> None:
        self._times_ns: deque[int] = deque(maxlen=frames + 1)

    def tick(self, now_ns: int) -> None:
        """A frame has left."""
        self._times_ns.append(now_ns)

    def per_second(self, now_ns: int) -> float:
        """The rate at which frames leave; a frame that is overdue lowers it, down to 0 when none comes."""
        times_ns = list(self._times_ns)
        if len(times_ns) < 2:
            return 0.0
        interval_ns = (times_ns[-1] - times_ns[0]) / (len(times_ns) - 1)
        waited_ns = now_ns - times_ns[-1]
        if waited_ns > STOPPED_NS or interval_ns <= 0:
            return 0.0
        return 1e9 / max(interval_ns, waited_ns)


def percentiles_ms(samples_ns: list[int], *percents: float) -> tuple[float, ...]:
    """Percentiles (0 to 100) of durations in nanoseconds, as milliseconds. Of nothing: NaN."""
    if not samples_ns:
        return tuple(float("nan") for _ in percents)
    return tuple(float(value) for value in np.percentile(np.asarray(samples_ns), percents) / NS_PER_MS)
