"""The command line as a user meets it: a process, its output, its exit status."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

SOURCE = "source: {type: synthetic, width: 320, height: 180}\n"


def edge_seg(*arguments: str | Path, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_seg", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_help_names_every_command_and_the_exit_statuses() -> None:
    done = edge_seg("--help")
    assert done.returncode == 0
    for word in ("run", "check", "snapshot", "bench", "eval", "model", "78 bad configuration"):
        assert word in done.stdout


def test_wrong_usage_is_status_2() -> None:
    assert edge_seg("walk").returncode == 2
    assert edge_seg("bench", "--size", "wide").returncode == 2


def test_check_prints_the_effective_configuration(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SOURCE)
    done = edge_seg("check", file)
    assert done.returncode == 0
    assert "budget_ms: 40" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_bad_configuration_is_status_78_and_says_where(tmp_path: Path, command: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SOURCE + "latency: {budget: 40}\n")
    done = edge_seg(command, file)
    assert done.returncode == 78
    assert f"{file}:2: latency.budget: unknown key (did you mean budget_ms?)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_that_is_no_video_is_status_78(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    file = tmp_path / "c.yaml"
    file.write_text("source: {type: file, path: text.mp4}\noutputs: [{type: rtsp, port: 0}]\n")
    done = edge_seg("run", file)
    assert done.returncode == 78
    assert "text.mp4" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_can_never_be_opened_ends_the_run_with_status_1_and_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(SOURCE + f"outputs: [{{type: rtsp, port: 0}}, {{type: rtsp, port: {port}}}]\n")
        done = edge_seg("run", file)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use; stop what uses it" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_ends_by_itself_after_seconds_and_says_what_it_did(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SOURCE + "outputs: [{type: rtsp, port: 0}]\n")
    done = edge_seg("run", file, "--seconds", "8")
    assert done.returncode == 0
    assert "stopped after" in done.stderr
    assert "Traceback" not in done.stderr


def test_snapshot_writes_a_picture_of_the_source_s_size(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SOURCE + "background: {type: colour, colour: '#ff00ff'}\n")
    done = edge_seg("snapshot", file, tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(tmp_path / "out.png"))
    assert picture.shape == (180, 320, 3)
    assert abs(picture[5, 5].astype(int) - (255, 0, 255)).max() < 12


def test_snapshot_refuses_what_it_cannot_write_before_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SOURCE)
    (tmp_path / "folder.png").mkdir()
    for out, reason in (
        (tmp_path / "out.txt", "ends in .png"),
        (tmp_path / "no" / "out.png", "no folder"),
        (tmp_path / "folder.png", "is not a file"),
    ):
        done = edge_seg("snapshot", file, out)
        assert done.returncode == 78
        assert reason in done.stderr


def test_a_snapshot_replaces_a_picture_only_when_it_has_one(tmp_path: Path) -> None:
    file, out = tmp_path / "c.yaml", tmp_path / "out.jpg"
    file.write_text(SOURCE)
    out.write_bytes(b"before")
    done = edge_seg("snapshot", file, out, "--timeout", "0.01")
    assert done.returncode == 1
    assert "no frame with a mask within" in done.stderr
    assert out.read_bytes() == b"before"
    sizes = []
    for quality in ("95", "20"):
        done = edge_seg("snapshot", file, out, "--quality", quality)
        assert done.returncode == 0, done.stderr
        assert cv2.imread(str(out)).shape == (180, 320, 3)
        sizes.append(out.stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]
    assert {path.name for path in tmp_path.iterdir()} == {"c.yaml", "out.jpg"}


def test_bench_prints_the_figures_of_its_contract() -> None:
    done = edge_seg("bench", "--json", "--size", "320x180", "--frames", "10", "--realtime", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for stage in ("pyramid", "flow", "fusion", "matte", "composite", "model"):
        assert 0 < figures["stages"][stage]["p50"] <= figures["stages"][stage]["p99"]
    assert figures["size"] == "320x180"
    assert figures["model"]["invoke_ms"]["p50"] > 0
    assert figures["frame_ms"]["p50"] > figures["model"]["invoke_ms"]["p50"]
    assert figures["memcpy_ms"]["p50"] > 0
    assert figures["composite_over_memcpy"] > 0
    assert figures["overhead_over_invoke"] > 0
    assert figures["peak_rss_mb"] > 10
    realtime = figures["realtime"]
    assert {"fps_in", "fps_out", "latency_ms", "misses", "mask_age_ms", "model_fps", "budget_ms"} <= set(
        realtime
    )
    assert realtime["fps_in"] > 0
    assert realtime["latency_ms"]["p50"] <= realtime["latency_ms"]["max"]


def test_a_reader_that_goes_away_makes_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(SOURCE)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "edge_seg", "check", str(file)],
            stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert "Traceback" not in done.stderr
