"""In the guest: the real picamera2 on libcamera's test camera (the kernel's vimc) -> csi source -> composited frames.

vimc gives one stream, of BGR888 in sizes that are multiples of six, whatever is asked for. So it cannot try the
small stream and the formats of a Raspberry Pi's camera; what it does try is everything between libcamera and a frame.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

from edge_seg.colour import bgr_to_i420
from edge_seg.errors import SourceLost
from edge_seg.probe import cameras
from edge_seg.sources import CsiSettings, Source, open_source
from edge_seg.types import I420, Frame, Matrix
from tests.vm.rig import playing, set_up, wait

for absent in ("pykms", "pidng", "pidng.core", "pidng.camdefs"):
    sys.modules[absent] = MagicMock()

import picamera2  # noqa: E402
from picamera2.allocators import Allocator, LibcameraAllocator  # noqa: E402

WIDTH, HEIGHT = 318, 180
FRAMES = 12
BARS = {
    "white": (180, 128, 128), "yellow": (161, 44, 142), "cyan": (131, 156, 44), "green": (112, 72, 58),
    "magenta": (84, 184, 198), "red": (65, 100, 212), "blue": (35, 212, 114), "black": (16, 128, 128),
}  # fmt: skip
"""What BT.601 makes of the camera's test picture, bars at 75 %: Y, U, V."""
SETTINGS = CsiSettings(width=WIDTH, height=HEIGHT, lores=False, stale_ms=20_000)


class Camera(picamera2.Picamera2):  # type: ignore[misc]
    """With memory of vimc's own: a Raspberry Pi's comes from a heap that this kernel does not have."""

    def __init__(self, camera_num: int = 0, tuning: str | None = None) -> None:
        super().__init__(camera_num, tuning=tuning, allocator=Allocator())
        self.allocator = LibcameraAllocator(self.camera)


def reference() -> tuple[Any, str]:
    """A picture by picamera2's own means, (H, W, 3), uint8, and the format of it."""
    camera = picamera2.Picamera2(0)
    try:
        camera.configure(camera.create_video_configuration(
            main={"format": "YUV420", "size": (WIDTH, HEIGHT)}, raw=None, controls={}
        ))  # fmt: skip
        main = camera.camera_config["main"]
        print(f"asked for YUV420 {WIDTH}x{HEIGHT}, configured {main}", flush=True)
        camera.start()
        picture = np.array(camera.capture_array("main"))
    finally:
        camera.close()
    return picture, str(main["format"])


def bars(picture: I420) -> dict[str, tuple[int, ...]]:
    """Y, U and V in the middle of each bar."""
    found = {}
    for index, name in enumerate(BARS):
        row, column = HEIGHT // 2, WIDTH * (2 * index + 1) // (2 * len(BARS))
        found[name] = (
            int(picture.y[row, column]),
            *(int(p[row // 2, column // 2]) for p in picture.planes[1:]),
        )
    return found


def open_patiently() -> Source:
    """vimc takes longer to stop than a closing camera is waited for."""
    for _ in range(10):
        try:
            return open_source(SETTINGS)
        except SourceLost as error:
            print("once more:", error, flush=True)
            time.sleep(1)
    raise AssertionError("it cannot be opened again")


def read(count: int) -> tuple[list[Frame], str]:
    source = open_patiently()
    frames: list[Frame] = []
    try:
        while len(frames) < count:
            frame = source.read(20_000_000_000)
            assert frame is not None, "no frame within 20 s"
            frames.append(frame)
        return frames, f"{source.name}, {source.format}"
    finally:
        source.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def main() -> None:
    set_up()
    logging.getLogger("picamera2").setLevel("WARNING")
    picamera2.Picamera2 = Camera
    picamera2.picamera2.DmaAllocator = Allocator  # close() makes a new one
    found = cameras.find(Path("/"))["cameras"]
    print("probe:", found, flush=True)
    assert [camera["source"] for camera in found if camera["kind"] == "csi"] == [{"type": "csi", "camera": 0}]

    shown, kind = reference()
    frames, what = read(FRAMES)
    now_ns = time.monotonic_ns()
    assert {(frame.picture.width, frame.picture.height) for frame in frames} == {(WIDTH, HEIGHT)}
    assert shown.shape == (HEIGHT, WIDTH, 3)
    stamps = [frame.captured_ns for frame in frames]
    gaps_ms = np.diff(stamps) / 1e6
    assert (gaps_ms > 0).all(), stamps
    assert now_ns - stamps[-1] < 5e9, stamps
    assert [frame.seq for frame in frames] == sorted({frame.seq for frame in frames})
    for frame in frames:
        assert bars(frame.picture) == BARS, bars(frame.picture)
    # libcamera names the bytes from the last to the first; at the bars' edges its picture is noisy.
    bgr = shown if kind == "RGB888" else shown[:, :, ::-1]
    theirs = bgr_to_i420(np.ascontiguousarray(bgr), Matrix.BT601)
    different = float(np.mean(np.abs(frames[-1].picture.y.astype(int) - theirs.y) > 1))
    print(
        f"{what}: {FRAMES} frames in {(stamps[-1] - stamps[0]) / 1e9:.2f} s, {frames[-1].seq + 1} captured, "
        f"gap {np.median(gaps_ms):.0f} ms (median), {gaps_ms.max():.0f} (most); "
        f"colour bars exact, {100 * different:.2f} % of the pixels unlike those of picamera2's own capture_array",
        flush=True,
    )
    assert different < 0.05

    held = open_patiently()
    try:
        open_source(SETTINGS)
    except SourceLost as error:
        print("a second opening:", error, flush=True)
    else:
        raise AssertionError("one camera was opened twice")
    finally:
        held.close()

    threads, before = threading.active_count(), descriptors()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(5):
        read(1)
    wait(lambda: threading.active_count() <= threads, "all cameras closed")
    gc.collect()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    after = descriptors()
    print(f"5 openings: descriptors {before}, {after}; memory +{grown:.1f} MB", flush=True)
    assert after <= before + 3

    with playing(SETTINGS, frames=10) as sink:
        assert sink.output is not None
        assert (sink.output.width, sink.output.height) == (WIDTH, HEIGHT)
    print("all is well", flush=True)
    sys.stdout.flush()
    os._exit(0)  # libcamera's own threads outlive Python's end


if __name__ == "__main__":
    main()
