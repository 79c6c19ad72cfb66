"""In the guest: a real /dev/video0 (the kernel's vivid driver) -> v4l2 source -> engine -> composited frames.

It is unplugged and plugged in again by unbinding its driver, as the kernel does with a USB camera.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_seg import probe
from edge_seg.sources import AutoSettings, V4l2Settings
from tests.vm.rig import Recorder, playing, set_up, wait

DRIVER = Path("/sys/bus/platform/drivers/vivid")
STALE_MS = 3000


def unplug_and_plug_in(sink: Recorder) -> None:
    device = next(DRIVER.glob("vivid.*")).name
    (DRIVER / "unbind").write_text(device)
    assert not Path("/dev/video0").exists()
    before = sink.slates
    wait(lambda: sink.slates > before, "unplugged: the card is shown after", STALE_MS / 1000 + 15)
    time.sleep(5)
    (DRIVER / "bind").write_text(device)
    held = [os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert not any("video" in path for path in held), held
    assert Path("/dev/video0").exists(), "somebody held the old one open: it is another node now"
    shown = sink.pictures
    wait(lambda: sink.pictures > shown + 10, "plugged in again: 10 frames after", 60)


def main() -> None:
    set_up()
    wait(lambda: Path("/dev/video0").exists(), "/dev/video0")
    report = probe.run(timeout_s=300)  # a busy host, emulating, takes longer than a user should wait
    assert not report["problems"], report["problems"]
    (camera,) = report["cameras"]
    print("probe:", camera["name"], camera["driver"], len(camera["formats"]), "formats and sizes", flush=True)
    assert camera["driver"] == "vivid"
    assert camera["source"] == {"type": "v4l2", "device": "/dev/video0"}
    with playing(V4l2Settings(width=640, height=360, stale_ms=STALE_MS)) as sink:
        unplug_and_plug_in(sink)
    with playing(AutoSettings(width=640, height=360, stale_ms=STALE_MS)):
        pass
    print("all is well", flush=True)


if __name__ == "__main__":
    main()
