"""A camera that comes and goes, injected for real; the daemon and its viewer stay through all of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import clips
from tests.e2e.daemon import Daemon
from tests.faults.proxy import Proxy
from tests.faults.rtsp_server import RtspServer
from tests.faults.viewer import Viewer, is_live, is_slate

pytestmark = pytest.mark.e2e

STALE_MS = 700


@dataclass
class Rig:
    server: RtspServer
    proxy: Proxy
    daemon: Daemon
    viewer: Viewer


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Camera -> network -> daemon -> one viewer, who connects before there is a camera and is never renewed."""
    folder = tmp_path_factory.mktemp("faults")
    with RtspServer() as server, Proxy(server.port) as proxy:
        server.kill()
        config = {
            "source": {
                "type": "rtsp",
                "url": f"rtsp://127.0.0.1:{proxy.port}/live",
                "stale_ms": STALE_MS,
                "repeats": "lost",
            },
            "background": {"type": "colour", "colour": "#206030"},
            "latency": {"budget_ms": 90},
        }
        with Daemon(folder, config) as daemon, Viewer(daemon.url) as viewer:
            yield Rig(server, proxy, daemon, viewer)
            assert viewer.is_connected
            assert daemon.stop()[0] == 0
            assert not any("Traceback" in line for line in daemon.log), daemon.log


def test_a_viewer_can_come_before_the_camera(rig: Rig) -> None:
    rig.viewer.wait_for(is_slate)
    rig.server.start()
    rig.viewer.wait_for(is_live)
    assert rig.viewer.is_connected


def lost_and_back(rig: Rig, inject: str, cause: str) -> None:
    """The camera gets a fault and is mended: the viewer sees a slate, then the person; the log says why."""
    since, line = time.monotonic(), len(rig.daemon.log)
    rig.server.tell(inject)
    rig.viewer.wait_for(is_slate, since=since)
    rig.daemon.wait_for(f"source lost, .*{cause}", since=line)
    since = time.monotonic()
    rig.server.tell("go")
    rig.viewer.wait_for(is_live, since=since)
    rig.daemon.wait_for(r"source back after \d+\.\d s", since=line)
    assert rig.viewer.is_connected


def test_a_killed_server_is_waited_for(rig: Rig) -> None:
    since, line = time.monotonic(), len(rig.daemon.log)
    rig.server.kill()
    rig.viewer.wait_for(is_slate, since=since)
    since = time.monotonic()
    rig.server.start()
    rig.viewer.wait_for(is_live, since=since)
    losses = [text for text in rig.daemon.log[line:] if "source lost" in text]
    assert len(losses) == 1, losses
    assert rig.viewer.is_connected


def test_a_network_that_swallows_everything_is_noticed_by_the_age_of_the_frame(rig: Rig) -> None:
    since, line = time.monotonic(), len(rig.daemon.log)
    rig.proxy.cut()
    rig.viewer.wait_for(is_slate, since=since)
    rig.daemon.wait_for(r"source lost, .*no frame for \d+ ms", since=line)
    since = time.monotonic()
    rig.proxy.mend()
    rig.viewer.wait_for(is_live, since=since)
    assert rig.viewer.is_connected


def test_a_stall_is_noticed(rig: Rig) -> None:
    lost_and_back(rig, "stall", "no frame for")


def test_a_picture_that_repeats_is_a_stuck_driver_where_the_configuration_says_so(rig: Rig) -> None:
    lost_and_back(rig, "freeze", "the same picture for")


def test_garbage_in_the_stream_is_a_loss_not_a_crash(rig: Rig) -> None:
    lost_and_back(rig, "garbage", "")


def test_another_size_and_rate_in_mid_stream_reach_the_viewer(rig: Rig) -> None:
    since = time.monotonic()
    rig.server.tell("size 480 360")
    seen = rig.viewer.wait_for(lambda seen: is_live(seen) and seen.size == (480, 360), since=since)
    rig.server.tell("rate 10")
    rig.daemon.wait_for("the picture is now 480x360 at 10 fps")
    rig.viewer.wait_for(is_live, since=seen.at + 1)
    rig.server.tell("size 640 360")
    rig.viewer.wait_for(lambda seen: is_live(seen) and seen.size == (640, 360), since=seen.at)
    assert rig.viewer.is_connected


def test_a_file_that_ends_is_played_again_and_viewers_stay(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "clip.mkv", lambda _: clips.quarters(320, 240), 45)
    with Daemon(tmp_path, {"source": {"type": "file", "path": str(path), "stale_ms": 200}}) as daemon:
        with Viewer(daemon.url) as viewer:
            daemon.wait_for("source lost, .*end of the file")
            daemon.wait_for("source back after")
            since = time.monotonic()
            viewer.wait_for(lambda seen: not seen.is_slate, since=since)
            assert viewer.is_connected
        assert daemon.stop()[0] == 0


def test_without_a_source_and_without_a_camera_viewers_can_come_and_the_log_says_what_was_tried(
    tmp_path: Path,
) -> None:
    with Daemon(tmp_path, {}) as daemon:
        daemon.wait_for("no source yet, .*no camera works here")
        with Viewer(daemon.url) as viewer:
            viewer.wait_for(is_slate)
        assert daemon.stop()[0] == 0
