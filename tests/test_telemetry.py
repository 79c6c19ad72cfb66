import re
import threading
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edge_seg import board, telemetry
from edge_seg.bench_realtime import NullSink
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.sources import SyntheticSettings
from tests.test_board import raspberry_pi


def engine() -> Engine:
    config = Config(source=SyntheticSettings(width=320, height=180, realtime=False))
    return Engine(config, sinks=[NullSink()])


def text_of(one: Engine, sysfs: Path) -> str:
    return generate_latest(telemetry.registry(one, lambda: board.read(sysfs))).decode()


def value_of(text: str, metric: str) -> float:
    match = re.search(rf"^{re.escape(metric)} (\S+)$", text, re.MULTILINE)
    assert match is not None, text
    return float(match[1])


def test_metrics_tell_how_a_running_engine_goes(tmp_path: Path) -> None:
    running, stop = engine(), threading.Event()
    raspberry_pi(tmp_path, throttled="50000")
    thread = threading.Thread(target=running.run, args=(stop,))
    thread.start()
    while running.frames_out < 20 and thread.is_alive():
        threading.Event().wait(0.05)
    text = text_of(running, tmp_path)
    stop.set()
    thread.join()
    assert value_of(text, "edge_seg_frames_out_total") >= 20
    assert value_of(text, "edge_seg_frames_captured_total") >= 20
    assert value_of(text, "edge_seg_model_runs_total") > 0
    assert value_of(text, "edge_seg_frame_rate") > 1
    assert value_of(text, "edge_seg_mask_age_frames") >= 0
    assert value_of(text, "edge_seg_healthy") == 1
    assert value_of(text, "edge_seg_source_up") == 1
    assert value_of(text, "edge_seg_model_failing") == 0
    assert value_of(text, 'edge_seg_output_up{output="null"}') == 1
    assert value_of(text, 'edge_seg_stage_duration_seconds_count{stage="flow"}') >= 20
    assert value_of(text, 'edge_seg_stage_duration_seconds_sum{stage="flow"}') > 0
    assert value_of(text, "edge_seg_latency_seconds_count") >= 20
    assert value_of(text, 'edge_seg_board_temperature_celsius{sensor="cpu-thermal"}') == 61.835
    assert value_of(text, 'edge_seg_board_throttled{reason="throttled"}') == 0
    assert value_of(text, 'edge_seg_board_throttled_since_boot{reason="throttled"}') == 1
    assert 'edge_seg_plan{flow_block_px="4",matte_quality="' in text
    assert re.search(r'edge_seg_build_info\{model="selfie_\w+ on ', text)


def test_before_the_first_frame_the_same_metrics_are_there(tmp_path: Path) -> None:
    text = text_of(engine(), tmp_path)
    assert value_of(text, "edge_seg_healthy") == 0
    assert value_of(text, "edge_seg_mask_age_frames") == -1
    assert value_of(text, "edge_seg_latency_seconds_count") == 0
    for family in text_string_to_metric_families(text):
        if family.name.startswith("edge_seg_"):
            assert family.documentation, family.name


def test_buckets_are_cumulative_and_end_with_all(tmp_path: Path) -> None:
    one = engine()
    for milliseconds in (0.3, 4, 4, 9_999):
        one.times.record("flow", round(milliseconds * 1e6))
    text = text_of(one, tmp_path)
    bucket = 'edge_seg_stage_duration_seconds_bucket{le="%s",stage="flow"}'
    found = [value_of(text, bucket % bound) for bound in ("0.0002", "0.0005", "0.005", "2", "+Inf")]
    assert found == [0, 1, 3, 3, 4]
