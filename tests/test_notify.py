import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_seg.budget import Plan
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.errors import EdgeSegError
from edge_seg.notify import EXTEND_EVERY_NS, STATUS_EVERY_NS, Notifier, Socket, Vitals
from edge_seg.output_worker import OutputStatus
from edge_seg.pyramid import Yuv444
from edge_seg.sources import SyntheticSettings
from edge_seg.status import Status
from edge_seg.types import F32
from tests.direct import DirectOutputs
from tests.test_engine import Metronome, Model, Recorder

SECOND_NS = 1_000_000_000
LATENCY = (11.6, 30.4)
NOBODY = OutputStatus("rtsp", "rtsp", "running", None, 0, 0, 0, None, 0, None, idle=True)
WATCHED = replace(NOBODY, viewers=2, frames=5, idle=False)
RETRYING = replace(NOBODY, state="retrying", cause="no server", viewers=None, idle=False)
BEFORE = Status(
    frames_captured=0, frames_dropped=0, frames_out=0, frame_rate=0.0, shown_ns=None, left_ns=None, source=None,
    source_cause=None, source_outages=0, model=None, model_failing=False, misses=0, model_runs=0,
    mask_age_ms=None, mask_age_frames=None, plan=Plan("fast", 4, 1), plan_changes=0, outputs=(NOBODY,),
)  # fmt: skip


def frame(at_ns: int, *outputs: OutputStatus) -> Status:
    """A composited frame has left at this time."""
    return replace(
        BEFORE, frames_out=at_ns // 1000 + 1, frame_rate=29.97, shown_ns=at_ns, left_ns=at_ns,
        source="v4l2 /dev/video0", outputs=outputs or (NOBODY,),
    )  # fmt: skip


def card(at_ns: int, *outputs: OutputStatus) -> Status:
    return replace(BEFORE, left_ns=at_ns, source_cause="no such device", outputs=outputs or (NOBODY,))


def kinds(lines: list[str]) -> list[str]:
    return [line.split("=")[0] for line in lines]


def test_ready_is_a_composited_frame_that_is_out_and_no_card() -> None:
    vitals = Vitals()
    assert "READY" not in kinds(vitals.look(BEFORE, LATENCY, 0))
    assert "READY" not in kinds(vitals.look(card(1), LATENCY, 1))
    assert "READY=1" in vitals.look(frame(2), LATENCY, 2)
    assert "READY" not in kinds(vitals.look(frame(3), LATENCY, 3))


def test_a_frame_that_no_output_took_makes_nobody_ready() -> None:
    vitals = Vitals()
    assert "READY" not in kinds(vitals.look(frame(10, WATCHED), LATENCY, 10))
    took_a_card = replace(WATCHED, last_left_ns=9)
    assert "READY" not in kinds(vitals.look(frame(11, took_a_card), LATENCY, 11))
    assert "READY" not in kinds(vitals.look(frame(12, RETRYING), LATENCY, 12))
    assert "READY=1" in vitals.look(frame(20, replace(WATCHED, last_left_ns=19)), LATENCY, 20)


def test_while_a_camera_is_waited_for_the_start_is_extended_but_not_by_a_loop_that_hangs() -> None:
    vitals = Vitals()
    assert "EXTEND_TIMEOUT_USEC" in kinds(vitals.look(card(1), LATENCY, 0))
    assert "EXTEND_TIMEOUT_USEC" not in kinds(vitals.look(card(2), LATENCY, 1))
    assert "EXTEND_TIMEOUT_USEC" in kinds(vitals.look(card(3), LATENCY, EXTEND_EVERY_NS))
    assert "EXTEND_TIMEOUT_USEC" not in kinds(vitals.look(card(3), LATENCY, 3 * EXTEND_EVERY_NS))
    assert "WATCHDOG" not in kinds(vitals.look(card(4), LATENCY, 3 * EXTEND_EVERY_NS))


@pytest.fixture
def vitals() -> Vitals:
    """Of a daemon that is ready."""
    vitals = Vitals()
    assert "READY=1" in vitals.look(frame(1), LATENCY, 1)
    return vitals


def test_the_watchdog_is_fed_by_pictures_that_leave_and_by_nothing_else(vitals: Vitals) -> None:
    assert "WATCHDOG=1" in vitals.look(frame(2), LATENCY, 2)
    assert "WATCHDOG=1" not in vitals.look(frame(2), LATENCY, 3)
    lost = replace(frame(2), left_ns=4, source=None, source_cause="unplugged")
    assert "WATCHDOG=1" in vitals.look(lost, LATENCY, 4)
    assert "WATCHDOG=1" not in vitals.look(lost, LATENCY, 5)


def test_an_output_that_hangs_is_no_life_one_that_is_retried_or_unwatched_is(vitals: Vitals) -> None:
    def is_fed(at_ns: int, *outputs: OutputStatus) -> bool:
        return "WATCHDOG=1" in vitals.look(frame(at_ns, *outputs), LATENCY, at_ns)

    assert is_fed(2, replace(WATCHED, last_left_ns=2))
    assert not is_fed(3, replace(WATCHED, last_left_ns=2))
    assert is_fed(4, replace(WATCHED, last_left_ns=2), replace(RETRYING, name="push"))
    assert is_fed(5, NOBODY)
    assert is_fed(6, replace(WATCHED, last_left_ns=6))


def test_the_status_line_is_renewed_on_a_transition_and_else_now_and_then(vitals: Vitals) -> None:
    assert "STATUS" not in kinds(vitals.look(frame(2), LATENCY, 2))
    assert "STATUS" in kinds(vitals.look(frame(3), LATENCY, 2 + STATUS_EVERY_NS))
    lost = replace(frame(4), source=None, source_cause="v4l2 /dev/video0: no frame for 2000 ms")
    assert "STATUS" in kinds(vitals.look(lost, LATENCY, 3 + STATUS_EVERY_NS))
    assert "STATUS" not in kinds(vitals.look(lost, LATENCY, 4 + STATUS_EVERY_NS))


def test_the_status_line_says_rate_latency_source_and_outputs_in_one_line(vitals: Vitals) -> None:
    running = frame(9, replace(WATCHED, viewers=1), replace(RETRYING, name="push"))
    assert vitals.text(running, LATENCY) == (
        "30.0 fps, latency 12/30 ms (p50/p99); source v4l2 /dev/video0; output rtsp: 1 viewer; "
        "output push lost, trying again: no server"
    )
    lost = replace(running, source=None, source_cause="unplugged\nfor good", outputs=())
    vitals.note = "reload at 12:00:00 refused: c.yaml:3: matte"
    assert vitals.text(lost, LATENCY) == (
        "source lost, trying again: unplugged for good; reload at 12:00:00 refused: c.yaml:3: matte"
    )
    assert len(vitals.text(replace(lost, source_cause="x" * 5000), LATENCY)) < 500


class Systemd:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(20)
        self.got: list[str] = []

    def wait_for(self, line: str) -> None:
        while line not in self.got:
            self.got += self._socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_reach_a_socket_by_path_or_by_abstract_name(tmp_path: Path, abstract: bool) -> None:
    systemd = Systemd(f"@edge-seg-test-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    connection = Socket({"NOTIFY_SOCKET": systemd.address})
    connection.send("READY=1", "STATUS=grüß Gott")
    systemd.wait_for("STATUS=grüß Gott")
    assert systemd.got == ["READY=1", "STATUS=grüß Gott"]
    systemd.close()
    connection.send("WATCHDOG=1")  # nobody there any more: no error
    connection.close()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdogs_interval_is_ours_only_if_it_is_meant_for_us(
    environment: dict[str, str], expected: float | None
) -> None:
    assert Socket({"NOTIFY_SOCKET": "@nowhere", **environment}).watchdog_s == expected


def test_without_systemd_nothing_happens() -> None:
    connection = Socket({})
    assert not connection.is_there
    before = threading.active_count()
    with Notifier(Engine(Config()), threading.Event(), connection):
        assert threading.active_count() == before


def run_beside(
    systemd: Systemd, engine: Engine, during: Callable[[Notifier], None], **environment: str
) -> None:
    stop = threading.Event()
    connection = Socket({"NOTIFY_SOCKET": systemd.address, **environment})
    thread = threading.Thread(target=engine.run, args=(stop,))
    with Notifier(engine, stop, connection) as notifier:
        thread.start()
        during(notifier)
        stop.set()
        systemd.wait_for("STOPPING=1")
    thread.join(20)


class Served(DirectOutputs):
    """An output that is open, and that nobody watches."""

    def status(self) -> list[OutputStatus]:
        return [NOBODY]


def engine_of(model: Callable[[Any], Any], stale_ms: int = 2000) -> Engine:
    recorder = Recorder(10**9)
    recorder.engine = engine = Engine(
        Config(source=SyntheticSettings(stale_ms=stale_ms)), outputs=Served(recorder), build_source=Metronome,
        build_model=model,
    )  # fmt: skip
    return engine


def test_from_the_first_frame_to_the_stop(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))

    def during(notifier: Notifier) -> None:
        notifier.reloading()  # before it is ready: systemd would take what follows for READY
        notifier.reloaded("refused: too early")
        systemd.wait_for("READY=1")
        systemd.wait_for("WATCHDOG=1")
        assert not any(line.startswith("RELOADING") for line in systemd.got)
        notifier.reloading()
        notifier.reloaded("nothing has changed")
        systemd.wait_for("RELOADING=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in systemd.got)
        systemd.wait_for("READY=1")

    run_beside(systemd, engine_of(lambda _: Model(0.001)), during, WATCHDOG_USEC="2000000")
    assert any("fps, latency" in line and "reload at" in line for line in systemd.got)
    systemd.close()


def test_a_source_that_may_be_silent_for_longer_than_the_watchdog_waits_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    run_beside(systemd, engine_of(lambda _: Model(0.001), 9000), lambda _: None, WATCHDOG_USEC="8000000")
    assert "WatchdogSec" in caplog.text
    systemd.close()


def test_a_defect_in_the_models_thread_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames would go on leaving, with nobody in them: only a new start helps, and systemd makes it."""

    class Defect(Model):
        def infer(self, small: Yuv444) -> F32:
            raise ZeroDivisionError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(EdgeSegError, match="model's thread"):
        engine_of(lambda _: Defect(0)).run(threading.Event())


@pytest.fixture(autouse=True)
def _warnings_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
