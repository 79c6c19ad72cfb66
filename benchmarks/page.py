"""What metrics and page cost the frame loop.

    .venv/bin/python benchmarks/page.py [--seconds 5] [--rounds 6] [--size 1280x720]

One engine at 30 frames a second on the demo's clip, its output replaced by one that does nothing; the ways of asking
take turns, so that what else the machine does meets them all alike. `loop` is the CPU time of the frame loop's own
thread for a frame, `process` that of the whole process, `latency` from the due time of a frame to its hand-over.
The median over the rounds is printed, with the lowest and highest in brackets.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from edge_seg.bench import CLIP_FRAMES, read_clip, scale
from edge_seg.bench_realtime import ClipSource, NullSink
from edge_seg.commands.bench import CLIP
from edge_seg.config import Config, LatencySettings
from edge_seg.engine import Engine
from edge_seg.memory import keep_freed
from edge_seg.page.server import WebServer
from edge_seg.page.settings import WebSettings
from edge_seg.sources import SyntheticSettings
from edge_seg.timings import StageTimes, percentiles_ms
from edge_seg.types import I420

CLIENT = """
import sys, time, urllib.request
every_s, url = float(sys.argv[1]), sys.argv[2]
while True:
    with urllib.request.urlopen(url, timeout=10) as answer:
        while answer.read1(65536):
            pass
    time.sleep(every_s)
"""
"""A process of its own, so that what asking costs is not taken for what answering costs."""

SCRAPE = ("metrics", 1.0)
"""Path and pause in seconds: ten times as often as Prometheus usually does."""
POLL = ("api/state", 1.0)
OUTPUT, MASK = ("preview.mjpeg?view=output", 0.0), ("preview.mjpeg?view=mask", 0.0)

WAYS: dict[str, tuple[tuple[str, float], ...] | None] = {
    "no server": None,
    "server, nobody asks": (),
    "scraped every second": (SCRAPE,),
    "page open": (POLL, OUTPUT),
    "page open, mask view": (POLL, MASK),
    "four watchers, scraped": (SCRAPE, POLL, OUTPUT, OUTPUT, MASK, MASK),
}


@contextlib.contextmanager
def asked(engine: Engine, way: tuple[tuple[str, float], ...] | None) -> Iterator[None]:
    if way is None:
        yield
        return
    with WebServer(WebSettings(port=0), engine) as server:
        clients = [
            subprocess.Popen([sys.executable, "-c", CLIENT, str(every_s), f"{server.url}{path}"])
            for path, every_s in way
        ]
        time.sleep(1)
        yield
        for client in clients:
            client.kill()
            client.wait()


def record_ns() -> float:
    """Of one StageTimes.record: with its histogram."""
    times, rounds = StageTimes(), 100_000
    started_ns = time.thread_time_ns()
    for index in range(rounds):
        times.record("flow", index * 100)
    return (time.thread_time_ns() - started_ns) / rounds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--size", default="1280x720")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    keep_freed()
    pictures = []
    for picture in read_clip(CLIP, CLIP_FRAMES):
        pictures.append(I420.allocate(width, height, picture.matrix))
        scale(picture, pictures[-1])
    # A budget that is always kept: the plan must not change between two ways.
    config = Config(source=SyntheticSettings(), latency=LatencySettings(budget_ms=2000))
    engine = Engine(config, sinks=[NullSink()], build_source=lambda: ClipSource(pictures))
    stop = threading.Event()
    loop = threading.Thread(target=engine.run, args=(stop,))
    loop.start()
    while engine.frames_out < 30:
        time.sleep(0.1)
    assert loop.ident is not None
    clock = time.pthread_getcpuclockid(loop.ident)
    found: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    for _ in range(arguments.rounds):
        for name, way in WAYS.items():
            with asked(engine, way):
                before = time.clock_gettime_ns(clock), time.process_time_ns(), engine.frames_out
                engine.times.clear()
                time.sleep(arguments.seconds)
                frames = engine.frames_out - before[2]
                loop_ms = (time.clock_gettime_ns(clock) - before[0]) / 1e6 / frames
                process_ms = (time.process_time_ns() - before[1]) / 1e6 / frames
                p50, p99 = percentiles_ms(engine.times.samples_ns("latency"), 50, 99)
            figures = {"loop": loop_ms, "process": process_ms, "latency p50": p50, "latency p99": p99}
            for figure, value in figures.items():
                found[name].setdefault(figure, []).append(value)
    stop.set()
    loop.join()
    print(f"{arguments.size}, 30 fps, {arguments.rounds} rounds of {arguments.seconds:g} s, ms")
    for name, by_figure in found.items():
        cells = [
            f"{figure} {statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
            for figure, values in by_figure.items()
        ]
        print(f"{name:24}", "  ".join(cells))
    print(f"one record of a stage, with its histogram: {record_ns():.0f} ns")


if __name__ == "__main__":
    main()
