"""In the guest: a real /dev/video0 (the kernel's vivid driver) -> v4l2 source -> engine -> composited frames.

It is unplugged and plugged in again by unbinding its driver, as the kernel does with a USB camera.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_seg import slate
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import AutoSettings, SourceSettings, V4l2Settings
from edge_seg.types import I420

DRIVER = Path("/sys/bus/platform/drivers/vivid")
STALE_MS = 3000
BACKGROUND = (235, 128, 128)


class Recorder(Sink):
    """An output that keeps what was shown last, and counts."""

    name = "recorder"

    def __init__(self) -> None:
        self.output: OutputFormat | None = None
        self.pictures = 0
        self.slates = 0
        self.background = 0.0

    def open(self, output: OutputFormat) -> None:
        self.output = output

    def reformat(self, output: OutputFormat) -> None:
        self.output = output

    def push(self, picture: I420, captured_ns: int) -> None:
        is_slate = abs(float(np.median(picture.y)) - slate.LUMA) < 2
        self.slates += is_slate
        self.pictures += not is_slate
        if not is_slate:
            self.background = float(np.mean(np.abs(picture.y.astype(int) - BACKGROUND[0]) < 3))

    def close(self) -> None:
        pass


def wait(condition: Callable[[], object], what: str, seconds: float = 120) -> float:
    """Waits, and says how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    took = time.monotonic() - began
    print(f"{what}: {took:.2f} s", flush=True)
    return took


def play(source: SourceSettings, unplug: bool) -> None:
    sink = Recorder()
    config = Config(
        source=source,
        background=BackgroundSettings(type="colour", colour="#ffffff"),
    )
    engine = Engine(config, sinks=[sink])
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    try:
        wait(lambda: sink.pictures >= 20, "20 composited frames")
        print(f"{sink.output}, {sink.background:.3f} of the picture is background", flush=True)
        if unplug:
            device = next(DRIVER.glob("vivid.*")).name
            (DRIVER / "unbind").write_text(device)
            assert not Path("/dev/video0").exists()
            before = sink.slates
            wait(lambda: sink.slates > before, "unplugged: the card is shown after", STALE_MS / 1000 + 5)
            time.sleep(5)
            (DRIVER / "bind").write_text(device)
            held = [os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
            assert not any("video" in path for path in held), held
            assert Path("/dev/video0").exists(), "somebody held the old one open: it is another node now"
            shown = sink.pictures
            wait(lambda: sink.pictures > shown + 10, "plugged in again: 10 frames after", 60)
    finally:
        stop.set()
        thread.join(20)
    print(engine.status(), engine.times.summary(), flush=True)


def main() -> None:
    cv2.setNumThreads(1)
    logging.basicConfig(level="INFO", stream=sys.stdout, format="%(relativeCreated)7d %(name)s: %(message)s")
    logging.getLogger("edge_seg.supervisor").setLevel("DEBUG")
    wait(lambda: Path("/dev/video0").exists(), "/dev/video0")
    said = subprocess.run(
        [sys.executable, "-m", "edge_seg", "probe", "--json"], capture_output=True, check=True
    )
    (camera,) = json.loads(said.stdout)["cameras"]
    print("probe:", camera["name"], camera["driver"], len(camera["formats"]), "formats and sizes", flush=True)
    assert camera["driver"] == "vivid"
    assert camera["source"] == {"type": "v4l2", "device": "/dev/video0"}
    play(V4l2Settings(width=640, height=360, stale_ms=STALE_MS), unplug=True)
    play(AutoSettings(width=640, height=360, stale_ms=STALE_MS), unplug=False)
    print("all is well", flush=True)


if __name__ == "__main__":
    main()
