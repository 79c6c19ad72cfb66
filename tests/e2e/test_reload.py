"""SIGHUP while somebody watches, from one connection that is never renewed."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

from tests.e2e.daemon import Daemon, watch

pytestmark = pytest.mark.e2e

CONFIG: dict[str, Any] = {
    "source": {"type": "synthetic", "width": 640, "height": 360, "fps": 10, "motion": "sway"},
    "background": {"type": "colour", "colour": "#206030"},
    "latency": {"budget_ms": 90},
    "outputs": [{"type": "rtsp", "port": 0}],
}
GREEN_V = 128 + round(224 * (0x20 - (0.2126 * 0x20 + 0.7152 * 0x60 + 0.0722 * 0x30)) / 1.5748 / 255)
"""V of #206030 (ITU-R BT.709-6, 3.3 and 3.4)."""
RED_V = 128 + round(224 * (0xC0 - 0.2126 * 0xC0) / 1.5748 / 255)
"""V of #c00000."""


def corner_v(frame: av.VideoFrame) -> float:
    """V in the upper left corner, where nobody stands."""
    planes = frame.to_ndarray(format="yuv420p")
    rows, cols = frame.height // 2, frame.width // 2
    return float(np.median(planes[frame.height :].reshape(-1)[rows * cols :].reshape(rows, cols)[:20, :20]))


def wait_for(frames: Iterator[av.VideoFrame], wanted: float, within: int = 80) -> int:
    """How many pictures later the corner has that V."""
    seen = []
    for count in range(within):
        seen.append(corner_v(next(frames)))
        if abs(seen[-1] - wanted) < 6:
            return count
    raise AssertionError(f"V {wanted} is not seen: {seen}")


def test_a_viewer_stays_and_sees_the_new_background_or_the_old_one_when_the_new_is_refused(
    tmp_path: Path,
) -> None:
    with Daemon(tmp_path, CONFIG) as daemon:
        viewer = watch(daemon.url)
        frames = viewer.decode(video=0)
        wait_for(frames, GREEN_V)

        def reload(config: dict[str, Any]) -> None:
            daemon.config_file.write_text(yaml.safe_dump(config))
            daemon.process.send_signal(signal.SIGHUP)

        reload(CONFIG | {"background": {"type": "colour", "colour": "#c00000"}, "matte": {"quality": "fast"}})
        line = daemon.wait_for(r"reloaded in (\d+) ms: (.*)")
        assert line[2] == "matte.quality (live), background.colour (live)"
        wait_for(frames, RED_V)

        reload(CONFIG | {"background": {"type": "image", "path": "nowhere.png"}})
        daemon.wait_for(r"reload refused.*config.yaml:\d+: background.path: no such file")
        for _ in range(5):
            assert abs(corner_v(next(frames)) - RED_V) < 6

        # By the file alone, once that is asked for.
        reload(CONFIG | {"background": {"type": "colour", "colour": "#c00000"}, "reload": {"watch": True}})
        daemon.wait_for(r"reloaded in .*reload.watch")
        other = tmp_path / "other.yaml"
        other.write_text(yaml.safe_dump(CONFIG | {"reload": {"watch": True}}))
        started = time.monotonic()
        other.rename(daemon.config_file)
        wait_for(frames, GREEN_V)
        assert time.monotonic() - started < 8

        viewer.close()
        assert daemon.stop()[0] == 0
        assert len([line for line in daemon.log if "a viewer came" in line]) == 1
        assert not any("Traceback" in line for line in daemon.log), daemon.log
