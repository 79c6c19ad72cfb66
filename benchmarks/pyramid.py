"""What the small picture costs, at the sizes of cameras.

    .venv/bin/python benchmarks/pyramid.py [--clip CLIP] [--grid 256x144] [--frames 12]

Frames of a video, scaled to each size, one after the other, so that no frame is in a cache from the time before;
with `--frames 1` all of it is. All calls in turn; the 10th percentile, which other work on the machine disturbs least.
`reference` is what runs where no compiler was; `area` is cv2.resize with INTER_AREA in one step, of all three planes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_seg.bench import read_clip, scale
from edge_seg.pyramid import shrink, shrink_plane_reference
from edge_seg.types import I420, U8

SIZES = ((640, 480), (854, 480), (1280, 720), (1279, 719), (1920, 1080), (3840, 2160))
CALLS = 360


def measure(pictures: list[I420], size: tuple[int, int], grid: tuple[int, int]) -> dict[str, float]:
    """Call -> ms a frame."""
    frames = [I420.allocate(*size) for _ in pictures]
    for picture, frame in zip(pictures, frames, strict=True):
        scale(picture, frame)
    copied = np.empty_like(frames[0].buffer)

    def each_plane(resize: Callable[[U8], U8]) -> Callable[[I420], object]:
        return lambda frame: [resize(plane) for plane in frame.planes]

    calls: dict[str, Callable[[I420], object]] = {
        "copy": lambda frame: np.copyto(copied, frame.buffer),
        "shrink": lambda frame: shrink(frame, grid),
        "reference": each_plane(lambda plane: shrink_plane_reference(plane, grid)),
        "area": each_plane(lambda plane: np.asarray(cv2.resize(plane, grid, interpolation=cv2.INTER_AREA))),
    }
    times: dict[str, list[int]] = {name: [] for name in calls}
    for index in range(CALLS):
        for offset, (name, call) in enumerate(calls.items()):
            frame = frames[(index + offset * len(frames) // len(calls)) % len(frames)]
            started_ns = time.perf_counter_ns()
            call(frame)
            times[name].append(time.perf_counter_ns() - started_ns)
    return {name: float(np.percentile(values, 10)) / 1e6 for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the small picture.")
    parser.add_argument("--clip", type=Path, default=Path("config/demo/person.mp4"))
    parser.add_argument("--grid", default="256x144", metavar="WxH")
    parser.add_argument("--frames", type=int, default=12)
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.grid.split("x"))
    cv2.setNumThreads(1)
    pictures = read_clip(arguments.clip, arguments.frames)
    names = "copy ms", "shrink ms", "/copy", "reference ms", "area ms", "area/shrink"
    print(" " * 12 + "".join(name.rjust(14) for name in names))
    for size in SIZES:
        ms = measure(pictures, size, (width, height))
        values = (
            f"{ms['copy']:.3f}",
            f"{ms['shrink']:.3f}",
            f"{ms['shrink'] / ms['copy']:.2f}",
            f"{ms['reference']:.3f}",
            f"{ms['area']:.3f}",
            f"{ms['area'] / ms['shrink']:.1f}",
        )
        print(f"{size[0]}x{size[1]}".ljust(12) + "".join(value.rjust(14) for value in values))


if __name__ == "__main__":
    main()
