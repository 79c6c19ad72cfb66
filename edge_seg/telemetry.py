"""How it goes, as Prometheus metrics over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import TracebackType
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_seg.engine import Engine
from edge_seg.errors import ConfigError
from edge_seg.page.settings import WebSettings

log = logging.getLogger(__name__)

QUANTILES = (50, 90, 99)


class EngineCollector(Collector):
    """Reads the engine when it is asked: nothing is counted twice, the frame loop pays nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        status = self._engine.status()
        for name, text, value in (
            ("frames_captured", "Frames that the source captured", status.frames_captured),
            ("frames_dropped", "Frames replaced by newer ones before their turn", status.frames_dropped),
            ("frames_out", "Frames handed to the outputs", status.frames_out),
            ("deadline_misses", "Frames that left later than latency.budget_ms", status.misses),
            ("model_runs", "Inferences of the mask model", status.model_runs),
            ("plan_changes", "Changes of the plan by the budget's controller", status.plan_changes),
        ):
            yield CounterMetricFamily(f"edge_seg_{name}", text, value)
        yield GaugeMetricFamily(
            "edge_seg_mask_age_seconds",
            "From the newest frame that the model has seen to the frame shown; -1 without a mask",
            -1 if status.mask_age_ms is None else status.mask_age_ms / 1000,
        )
        yield GaugeMetricFamily(
            "edge_seg_mask_age_frames",
            "The same in frames; -1 without a mask",
            -1 if status.mask_age_frames is None else status.mask_age_frames,
        )
        plan = GaugeMetricFamily(
            "edge_seg_plan", "What a frame gets now", labels=("matte_quality", "flow_block_px", "model_every")
        )
        labels = (status.plan.matte_quality, status.plan.block_px, status.plan.model_every)
        plan.add_metric([str(label) for label in labels], 1)
        yield plan
        stages = GaugeMetricFamily(
            "edge_seg_stage_seconds",
            "Quantiles over the newest frames: each stage, latency (capture to hand-over), mask age",
            labels=("stage", "quantile"),
        )
        for stage, values in self._engine.times.percentiles_ms(*QUANTILES).items():
            for percent, milliseconds in zip(QUANTILES, values, strict=True):
                stages.add_metric([stage.replace(" ", "_"), str(percent / 100)], milliseconds / 1000)
        yield stages


class MetricsServer:
    """Serves /metrics while it is entered. A port that is taken is a warning: the video matters more."""

    def __init__(self, settings: WebSettings, engine: Engine) -> None:
        self._settings = settings
        self._server: WSGIServer | None = None
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(engine))

    def __enter__(self) -> MetricsServer:
        self._server = None
        try:
            self._server = self._listen(self._settings)
        except ConfigError as error:
            log.warning("no metrics: %s", str(error).removeprefix("web.port: "))
        return self

    def apply(self, settings: WebSettings) -> None:
        """Serves at another address from now on. Raises ConfigError where that cannot be listened on; then the old
        one stays."""
        before, self._settings = self._settings, settings
        self._close()  # first: it may be the same port
        try:
            self._server = self._listen(settings)
        except ConfigError:
            self._settings = before
            self._server = self._listen(before)
            raise

    def _listen(self, settings: WebSettings) -> WSGIServer | None:
        address, port = settings.address, settings.port
        if port is None:
            return None
        try:
            server, _ = start_http_server(port, address, self._registry)
        except OSError as error:
            raise ConfigError(
                f"web.port: cannot listen on {address}:{port}: {error.strerror or error}"
            ) from error
        log.info("metrics at http://%s:%d/metrics", *server.server_address[:2])
        return server

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
