import logging
import re
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from edge_seg.bench_realtime import NullSink
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.page.settings import WebSettings
from edge_seg.sources import SyntheticSettings
from edge_seg.telemetry import MetricsServer


def engine() -> Engine:
    config = Config(source=SyntheticSettings(width=320, height=180, realtime=False))
    return Engine(config, sinks=[NullSink()])


def value_of(text: str, metric: str) -> float:
    match = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
    assert match is not None, text
    return float(match[1])


def test_metrics_tell_how_a_running_engine_goes(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    running, stop = engine(), threading.Event()
    thread = threading.Thread(target=running.run, args=(stop,))
    with caplog.at_level(logging.INFO), MetricsServer(WebSettings(port=0), running):
        thread.start()
        while running.frames_out < 20 and thread.is_alive():
            threading.Event().wait(0.05)
        match = re.search(r"http://\S+/metrics", caplog.text)
        assert match is not None
        with urllib.request.urlopen(match[0], timeout=10) as answer:
            text = answer.read().decode()
        stop.set()
        thread.join()
    assert value_of(text, "edge_seg_frames_out_total") >= 20
    assert value_of(text, "edge_seg_frames_captured_total") >= 20
    assert value_of(text, "edge_seg_model_runs_total") > 0
    assert value_of(text, "edge_seg_mask_age_frames") >= 0
    assert value_of(text, 'edge_seg_stage_seconds{quantile="0.5",stage="flow"}') > 0
    assert 'edge_seg_plan{flow_block_px="4",matte_quality="' in text


def test_a_taken_port_is_a_warning_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with MetricsServer(WebSettings(port=port), engine()):
            pass
    assert f"no metrics: cannot listen on 127.0.0.1:{port}" in caplog.text
