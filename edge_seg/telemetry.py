"""How it goes, as Prometheus metrics. docs/monitoring.md lists them.

Nothing is counted here: the engine is read when it is asked, and the frame loop pays nothing for that.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge_seg import __version__, board
from edge_seg.engine import Engine
from edge_seg.health import unhealthy
from edge_seg.status import Status
from edge_seg.timings import BOUNDS_NS, Histogram

NO_STAGES = ("latency", "mask age")
"""Kept beside the stages, and metrics of their own."""


def registry(engine: Engine, read_board: Callable[[], board.Board] = board.read) -> CollectorRegistry:
    """Everything that /metrics shows: of the engine, the board and this process."""
    found = CollectorRegistry()
    found.register(EngineCollector(engine))
    found.register(BoardCollector(read_board))
    ProcessCollector(registry=found)
    return found


class EngineCollector(Collector):
    """Reads the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        status, config = self._engine.status(), self._engine.config
        health = unhealthy(status, config.source.stale_ms, time.monotonic_ns())
        yield InfoMetricFamily(
            "edge_seg_build",
            "What runs",
            {"version": __version__, "python": platform.python_version(), "model": status.model or ""},
        )
        yield GaugeMetricFamily(
            "edge_seg_healthy", "1 while a fresh frame is leaving, as /healthz says", health is None
        )
        yield from _of_frames(status, config.latency.budget_ms)
        yield from _of_times(self._engine)
        yield from _of_source_and_model(status)
        yield from _of_outputs(status)


class BoardCollector(Collector):
    """Reads temperatures and throttling."""

    def __init__(self, read: Callable[[], board.Board]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        found = self._read()
        temperatures = GaugeMetricFamily(
            "edge_seg_board_temperature_celsius", "Of each sensor", labels=("sensor",)
        )
        for sensor, celsius in found.temperatures_c.items():
            temperatures.add_metric([sensor], celsius)
        yield temperatures
        throttled = GaugeMetricFamily(
            "edge_seg_board_throttled", "1 while the clocks are cut for this reason", labels=("reason",)
        )
        for reason, is_so in found.throttled.items():
            throttled.add_metric([reason], is_so)
        yield throttled
        since_boot = GaugeMetricFamily(
            "edge_seg_board_throttled_since_boot",
            "1 when they were cut at any time since",
            labels=("reason",),
        )
        for reason, was_so in found.throttled_since_boot.items():
            since_boot.add_metric([reason], was_so)
        yield since_boot
        events = CounterMetricFamily(
            "edge_seg_board_throttle_events", "How often the clocks were cut", labels=("reason",)
        )
        for reason, count in found.throttle_events.items():
            events.add_metric([reason], count)
        yield events


def _of_frames(status: Status, budget_ms: float) -> Iterator[Metric]:
    for name, text, value in (
        ("frames_captured", "Frames that the source captured", status.frames_captured),
        ("frames_dropped", "Frames replaced by newer ones before their turn", status.frames_dropped),
        ("frames_out", "Composited frames handed to the outputs", status.frames_out),
        ("deadline_misses", "Frames that left later than latency.budget_ms", status.misses),
        ("model_runs", "Inferences of the mask model", status.model_runs),
        ("plan_changes", "Changes of the plan by the budget's controller", status.plan_changes),
    ):
        yield CounterMetricFamily(f"edge_seg_{name}", text, value)
    yield GaugeMetricFamily("edge_seg_frame_rate", "Frames a second that leave", status.frame_rate)
    yield GaugeMetricFamily(
        "edge_seg_latency_budget_seconds", "latency.budget_ms, in seconds", budget_ms / 1000
    )
    yield GaugeMetricFamily(
        "edge_seg_mask_present",
        "1 while the newest frame was shown with a mask",
        status.mask_age_ms is not None,
    )
    yield GaugeMetricFamily(
        "edge_seg_mask_age_frames",
        "From the newest frame that the model has seen to the frame shown; -1 without a mask",
        -1 if status.mask_age_frames is None else status.mask_age_frames,
    )
    plan = GaugeMetricFamily(
        "edge_seg_plan", "What a frame gets now", labels=("matte_quality", "flow_block_px", "model_every")
    )
    labels = (status.plan.matte_quality, status.plan.block_px, status.plan.model_every)
    plan.add_metric([str(label) for label in labels], 1)
    yield plan


def _of_times(engine: Engine) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "edge_seg_stage_duration_seconds", "What each stage of a frame took", labels=("stage",)
    )
    latency = HistogramMetricFamily(
        "edge_seg_latency_seconds", "From the capture of a frame to its hand-over to the outputs", labels=()
    )
    mask_age = HistogramMetricFamily(
        "edge_seg_mask_age_seconds",
        "From the newest frame that the model has seen to the frame shown",
        labels=(),
    )
    families = {"latency": latency, "mask age": mask_age}
    histograms = engine.times.histograms()
    for name in NO_STAGES:
        _add(families[name], [], histograms.get(name, Histogram((0,) * (len(BOUNDS_NS) + 1), 0)))
    for stage, histogram in histograms.items():
        if stage not in NO_STAGES:
            _add(stages, [stage.replace(" ", "_")], histogram)
    yield from (stages, latency, mask_age)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound_ns, count in zip((*BOUNDS_NS, None), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound_ns is None else f"{bound_ns / 1e9:g}", total))
    family.add_metric(labels, buckets, histogram.sum_ns / 1e9)


def _of_source_and_model(status: Status) -> Iterator[Metric]:
    yield GaugeMetricFamily("edge_seg_source_up", "1 while the source delivers", status.source is not None)
    yield CounterMetricFamily(
        "edge_seg_source_outages", "How often a source that had delivered was lost", status.source_outages
    )
    yield GaugeMetricFamily(
        "edge_seg_model_failing", "1 while the newest inference failed", status.model_failing
    )


def _of_outputs(status: Status) -> Iterator[Metric]:
    info = InfoMetricFamily("edge_seg_output", "Each output", labels=("output",))
    up = GaugeMetricFamily("edge_seg_output_up", "1 while the output runs", labels=("output",))
    viewers = GaugeMetricFamily(
        "edge_seg_output_viewers", "Who watches, where the output knows", labels=("output",)
    )
    frames = CounterMetricFamily(
        "edge_seg_output_frames", "Pictures that the output took", labels=("output",)
    )
    dropped = CounterMetricFamily(
        "edge_seg_output_dropped", "Pictures that the output was too slow for", labels=("output",)
    )
    restarts = CounterMetricFamily(
        "edge_seg_output_restarts", "How often the output was lost after it had run", labels=("output",)
    )
    for output in status.outputs:
        info.add_metric([output.name], {"kind": output.kind, "encoder": output.encoder or ""})
        up.add_metric([output.name], output.state == "running")
        frames.add_metric([output.name], output.frames)
        dropped.add_metric([output.name], output.dropped)
        restarts.add_metric([output.name], output.restarts)
        if output.viewers is not None:
            viewers.add_metric([output.name], output.viewers)
    yield from (info, up, viewers, frames, dropped, restarts)
