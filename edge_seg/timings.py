"""How long the stages of a frame take: recorded on every frame, summarised on request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

KEPT = 4096
"""Samples kept per stage: a little over two minutes at 30 frames a second."""

NS_PER_MS = 1e6


class StageTimes:
    """Durations of named stages. One writer; readers may call at any time."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._samples: dict[str, deque[int]] = {}

    def record(self, stage: str, duration_ns: int) -> None:
        samples = self._samples.get(stage)
        if samples is None:
            samples = self._samples[stage] = deque(maxlen=self._kept)
        samples.append(duration_ns)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Records the time spent in the block, also when it raises."""
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            self.record(stage, time.perf_counter_ns() - started)

    def clear(self) -> None:
        self._samples.clear()

    def percentiles_ms(self, *percents: float) -> Mapping[str, tuple[float, ...]]:
        """Stage -> its percentiles (0 to 100) in milliseconds, in the order the stages first ran."""
        return {
            stage: percentiles_ms(list(samples), *percents) for stage, samples in list(self._samples.items())
        }

    def samples_ns(self, stage: str) -> list[int]:
        """The kept samples of one stage, oldest first."""
        return list(self._samples.get(stage, ()))

    def summary(self) -> str:
        """One line for the log: `stage p50/p99 ms`, stage by stage."""
        return ", ".join(
            f"{stage} {p50:.2f}/{p99:.2f}" for stage, (p50, p99) in self.percentiles_ms(50, 99).items()
        )


def percentiles_ms(samples_ns: list[int], *percents: float) -> tuple[float, ...]:
    """Percentiles (0 to 100) of durations in nanoseconds, as milliseconds. Of nothing: NaN."""
    if not samples_ns:
        return tuple(float("nan") for _ in percents)
    return tuple(float(value) for value in np.percentile(np.asarray(samples_ns), percents) / NS_PER_MS)
