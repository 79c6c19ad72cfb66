"""In the guest: the engine feeds a virtual webcam (v4l2loopback), which GStreamer reads like any other program."""

from __future__ import annotations

import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from edge_seg import gstreamer, probe
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config, LatencySettings, PrivacySettings
from edge_seg.engine import Engine
from edge_seg.errors import SinkError
from edge_seg.model_card import ModelSettings
from edge_seg.sinks import OutputFormat, V4l2OutputSettings, open_sink
from edge_seg.sources import AutoSettings, SyntheticSettings, V4l2Settings, open_source
from edge_seg.sources.auto import candidates
from edge_seg.types import I420, Frame, Matrix
from tests.vm.rig import set_up, wait

DEVICE = Path("/dev/video10")
GREEN = (77, 116, 104)
"""#206030 in BT.601: Y, U, V."""


def refusal(settings: V4l2OutputSettings, seconds: float = 10) -> str:
    """What an output says that cannot be had: at once, or with its first pictures."""
    sink = open_sink(settings)
    picture = I420.allocate(320, 180, Matrix.BT601)
    try:
        sink.open(OutputFormat(320, 180, Fraction(10), Matrix.BT601))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            sink.push(picture, time.monotonic_ns())
            time.sleep(0.1)
    except SinkError as error:
        return str(error)
    finally:
        sink.close()
    return "it was opened"


def read(count: int) -> list[Frame]:
    """As a program that wants a webcam, 640x360."""
    source = open_source(V4l2Settings(device=str(DEVICE), width=640, height=360))
    frames: list[Frame] = []
    try:
        while len(frames) < count:
            frame = source.read(30_000_000_000)
            assert frame is not None, "no frame within 30 s"
            frames.append(frame)
    finally:
        source.close()
    return frames


def main() -> None:
    set_up()
    wait(lambda: DEVICE.exists(), str(DEVICE))
    report = probe.run(timeout_s=300)
    webcams = [camera for camera in report["cameras"] if camera["kind"] == "loopback"]
    print("probe:", webcams, flush=True)
    assert [camera["output"] for camera in webcams] == [{"type": "v4l2", "device": str(DEVICE)}]
    for device in ("/dev/video0", "/dev/video99"):
        said = refusal(V4l2OutputSettings(device=device))
        print(f"{device}:", said, flush=True)
        assert "modprobe v4l2loopback" in said

    config = Config(
        source=SyntheticSettings(width=640, height=360, fps=2, stale_ms=20_000, motion="still", noise=0),
        background=BackgroundSettings(type="colour", colour="#206030"),
        model=ModelSettings(probe=False),
        latency=LatencySettings(budget_ms=2000),
        privacy=PrivacySettings(max_mask_age_ms=60_000),
        outputs=[V4l2OutputSettings(device=str(DEVICE))],
    )
    engine = Engine(config)
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    try:
        wait(
            lambda: engine.status().outputs and engine.status().outputs[0].frames >= 10,
            "10 frames into it",
            240,
        )
        frames = read(10)
        picture = frames[-1].picture
        assert (picture.width, picture.height) == (640, 360)
        corner = [float(plane[:20, :20].mean()) for plane in picture.planes]
        person = float(np.mean(np.abs(picture.y.astype(int) - GREEN[0]) > 12))
        print(
            f"10 frames out of it in {(frames[-1].captured_ns - frames[0].captured_ns) / 1e9:.1f} s, corner {corner}, "
            f"{person:.3f} of the picture is person", flush=True,
        )  # fmt: skip
        assert np.abs(np.array(corner) - GREEN).max() < 3, corner
        assert 0.02 < person < 0.8
        offered = [candidate.name for candidate in candidates(AutoSettings())]
        print("auto would take:", offered, flush=True)
        assert not any(str(DEVICE) in name for name in offered), "its own picture"
        said = refusal(V4l2OutputSettings(device=str(DEVICE)))
        print("a second program:", said, flush=True)
        assert "another program feeds it" in said
    finally:
        stop.set()
        thread.join(20)
    print(engine.status().outputs, gstreamer.load().version_string(), flush=True)
    print("all is well", flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
