"""The service as systemd runs it: sandboxed, ready with its first frame, watched, restarted, reloaded, stopped."""

import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import Machine, why_not

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(why_not() is not None, reason=f"no systemd of our own: {why_not()}"),
]

CAMERA = """
source:
  type: gst
  launch: videotestsrc is-live=true ! video/x-raw,format=YUY2,width=320,height=180,framerate=15/1
  stale_ms: 1000
model: {threads: 1}
latency: {budget_ms: 200}
outputs: [{type: rtsp, port: PORT}]
web: {port: 9108}
"""
"""YUY2: converting it runs code that is generated at run time (ORC), which the sandbox must allow."""

NO_CAMERA = """
source:
  type: rtsp
  url: rtsp://127.0.0.1:9/
  user: viewer
  password_file: $CREDENTIALS_DIRECTORY/camera
  stale_ms: 500
model: {threads: 1}
outputs: [{type: rtsp, port: 8555}]
"""
SECRET = "quite-a-secret"

START_TIMEOUT_S = 10
WATCHDOG_S = 4

DROP_INS = {
    "edge-seg.service": f"""[Service]
TimeoutStartSec={START_TIMEOUT_S}
LoadCredential=camera:/etc/edge-seg/camera.secret
""",
    "edge-seg@.service": f"""[Service]
WatchdogSec={WATCHDOG_S}
RestartSec=200ms
""",
}

FRONT = "edge-seg@front"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine(DROP_INS) as machine:
        machine.write("/etc/edge-seg/front.yaml", CAMERA.replace("PORT", "8554"))
        machine.write("/etc/edge-seg/edge-seg.yaml", NO_CAMERA)
        machine.write("/etc/edge-seg/broken.yaml", "sauce: {}\n")
        machine.write("/etc/edge-seg/camera.secret", SECRET + "\n", mode=0o600)
        keep_plugin_list(machine)
        start = ("systemctl", "start", "--no-block")
        assert machine.run(*start, FRONT, "edge-seg@broken").returncode == 0
        machine.wait_until(lambda: machine.show(FRONT, "ActiveState") == "active", 60)
        assert machine.run(*start, "edge-seg").returncode == 0
        yield machine


def keep_plugin_list(machine: Machine) -> None:
    """GStreamer's list of plugins, where this machine has one: making it takes seconds."""
    for found in (Path.home() / ".cache" / "gstreamer-1.0").glob("registry.*.bin"):
        machine.write("/var/cache/edge-seg/gstreamer-1.0/none", "")
        shutil.copy(found, machine.root / "var/cache/edge-seg/gstreamer-1.0")
        assert machine.run("chown", "-R", "edge-seg:edge-seg", "/var/cache/edge-seg").returncode == 0


def status_of(machine: Machine, unit: str, *wanted: str, timeout_s: float = 30) -> str:
    """The status line, once it has all of these in it."""
    machine.wait_until(lambda: all(word in machine.show(unit, "StatusText") for word in wanted), timeout_s)
    return machine.show(unit, "StatusText")


def main_pid(machine: Machine, unit: str = FRONT) -> int:
    return int(machine.show(unit, "MainPID"))


def test_a_wrong_configuration_is_not_tried_again(machine: Machine) -> None:
    machine.wait_until(lambda: machine.show("edge-seg@broken", "ActiveState") == "failed")
    assert machine.show("edge-seg@broken", "ExecMainStatus") == "78"
    assert machine.show("edge-seg@broken", "NRestarts") == "0"
    assert "/etc/edge-seg/broken.yaml:1: sauce: unknown key" in machine.journal("edge-seg@broken")


def test_it_runs_as_its_own_user_in_folders_of_its_own(machine: Machine) -> None:
    assert machine.ask("stat", "-c", "%U %a", "/var/lib/edge-seg/front") == "edge-seg 750"
    process = f"/proc/{main_pid(machine)}"
    assert machine.ask("stat", "-c", "%U", process) == "edge-seg"
    assert machine.ask("readlink", f"{process}/cwd") == "/var/lib/edge-seg/front"
    status = (machine.root / process.lstrip("/") / "status").read_text()
    assert "CapBnd:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    groups = machine.ask("id", "-nG", "edge-seg").split()
    assert {"video", "render"} <= set(groups)


def test_a_viewer_is_served_out_of_the_sandbox(machine: Machine) -> None:
    watch = (
        "import av; v = av.open('rtsp://127.0.0.1:8554/live', options={'rtsp_transport': 'tcp'}, timeout=20); "
        "frames = v.decode(video=0); print(*[(f.width, f.height) for f, _ in zip(frames, range(5))])"
    )
    done = machine.beside(sys.executable, "-c", watch)
    assert done.stdout.split("\n")[0] == " ".join(["(320, 180)"] * 5), done.stderr + machine.journal(FRONT)
    assert "orc" not in machine.journal(FRONT).lower()


def test_the_status_line_and_the_journal_are_readable(machine: Machine) -> None:
    text = status_of(machine, FRONT, "fps", "source gst: videotestsrc")
    assert "latency" in text
    lines = machine.ask("journalctl", "--no-pager", "-o", "json", "-u", FRONT).splitlines()
    entries = [json.loads(line) for line in lines]
    serving = next(
        entry for entry in entries if "serving rtsp://127.0.0.1:8554/live" in str(entry["MESSAGE"])
    )
    assert serving["PRIORITY"] == "6"
    if importlib.util.find_spec("systemd") is not None:
        assert serving["LOGGER"].startswith("edge_seg.sinks.rtsp")
        assert serving["SYSLOG_IDENTIFIER"] == "edge-seg"
    assert not any("Traceback" in str(entry["MESSAGE"]) for entry in entries)


def test_health_metrics_and_the_preview_are_served_out_of_the_sandbox(machine: Machine) -> None:
    ask = (
        "import urllib.request as r; u = 'http://127.0.0.1:9108'; get = lambda p: r.urlopen(u + p, timeout=20).read(); "
        "print(get('/healthz'), b'edge_seg_healthy 1.0' in get('/metrics'), get('/preview.jpg?view=mask')[:2])"
    )
    done = machine.beside(sys.executable, "-c", ask)
    assert done.stdout.strip() == r"b'ok\n' True b'\xff\xd8'", done.stderr + machine.journal(FRONT)


def test_a_reload_is_applied_and_a_wrong_one_refused_by_the_same_process(machine: Machine) -> None:
    pid = main_pid(machine)
    good = CAMERA.replace("PORT", "8554") + "background: {colour: '#c00000'}\n"
    machine.write("/etc/edge-seg/front.yaml", good)
    assert machine.run("systemctl", "reload", FRONT).returncode == 0
    status_of(machine, FRONT, "reload at", "background.colour (live)")
    machine.write("/etc/edge-seg/front.yaml", good + "backgroud: {}\n")
    assert machine.run("systemctl", "reload", FRONT).returncode == 0
    status_of(machine, FRONT, "refused: /etc/edge-seg/front.yaml:11: backgroud: unknown key")
    machine.wait_until(lambda: machine.show(FRONT, "ActiveState") == "active")
    assert main_pid(machine) == pid
    machine.write("/etc/edge-seg/front.yaml", good)


def test_a_daemon_that_hangs_is_killed_and_started_again(machine: Machine) -> None:
    pid, restarts = main_pid(machine), int(machine.show(FRONT, "NRestarts"))
    assert machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", FRONT).returncode == 0
    took_s = machine.wait_until(lambda: main_pid(machine) not in (pid, 0))
    print(f"killed and started again {took_s:.1f} s after it hung, WatchdogSec={WATCHDOG_S}")
    assert took_s < WATCHDOG_S + 5
    assert int(machine.show(FRONT, "NRestarts")) == restarts + 1
    assert "Watchdog timeout" in machine.journal(FRONT)
    assert "Fatal Python error: Aborted" in machine.journal(FRONT)  # and what every thread did


def test_a_daemon_that_is_killed_is_started_again(machine: Machine) -> None:
    pid = main_pid(machine)
    assert machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", FRONT).returncode == 0
    machine.wait_until(lambda: main_pid(machine) not in (pid, 0))
    machine.wait_until(lambda: machine.show(FRONT, "ActiveState") == "active", 60)


def test_without_a_camera_it_is_waited_for_and_nobody_waits_for_the_service(machine: Machine) -> None:
    assert machine.run("systemctl", "start", "boot.target", timeout_s=10).returncode == 0
    began_us = int(machine.show("edge-seg", "ExecMainStartTimestampMonotonic"))
    late_us = began_us + (START_TIMEOUT_S + 1) * 1_000_000
    machine.wait_until(lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 > late_us)
    assert machine.show("edge-seg", "ActiveState") == "activating"
    assert machine.show("edge-seg", "NRestarts") == "0"
    assert "no source yet" in status_of(machine, "edge-seg", "output rtsp")
    # A service that is not ready cannot be reloaded, but told.
    machine.write("/etc/edge-seg/edge-seg.yaml", CAMERA.replace("PORT", "8555").replace("9108", "9109"))
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "edge-seg")
    machine.wait_until(lambda: machine.show("edge-seg", "ActiveState") == "active")
    assert machine.show("edge-seg", "NRestarts") == "0"
    assert SECRET not in machine.journal("edge-seg")
    machine.run("systemctl", "stop", "--no-block", "edge-seg")


def test_it_stops_soon_and_well(machine: Machine) -> None:
    started = time.monotonic()
    assert machine.run("systemctl", "stop", FRONT).returncode == 0
    print(f"stopped within {time.monotonic() - started:.1f} s")
    assert time.monotonic() - started < 5
    assert machine.show(FRONT, "ActiveState") == "inactive"
    assert machine.show(FRONT, "Result") == "success"
    assert machine.show(FRONT, "ExecMainStatus") == "0"
    assert machine.show("edge-seg", "Result") == "success"
