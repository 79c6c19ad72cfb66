"""What a media server that fails costs an output of type push: time to notice, time to be back.

    .venv/bin/python -m benchmarks.publishing [--runs 5]

The server is a process of its own (GstRtspServer with RECORD, or an SRT listener); pictures of 640x360 at 30 a second.
It is killed, frozen (SIGSTOP), or, as root, its network swallows everything. "Back" is from the moment that it was
mended to the first picture that it decodes, of a frozen one, which first decodes what is old, until 20 pictures were
taken; the pause before the next try is in it.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import statistics
import threading
import time
from collections.abc import Callable
from fractions import Fraction

from edge_seg.outputs import Outputs
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.push import PushSettings
from edge_seg.types import I420, Matrix
from tests.faults.media_server import MediaServer
from tests.faults.namespace import Namespace

FORMAT = OutputFormat(640, 360, Fraction(30), Matrix.BT601)
DOWN_S = 2.0
LIMIT_S = 60.0


def feed(outputs: Outputs, stop: threading.Event) -> None:
    outputs.reformat(FORMAT)
    picture = I420.allocate(640, 360, Matrix.BT601)
    for index in itertools.count():
        if stop.wait(1 / 30):
            return
        picture.buffer[:] = 128
        picture.y[:] = 60 + index % 100
        picture.y[:, index % 500 : index % 500 + 100] = 200
        outputs.push(picture, time.monotonic_ns())


def waited(done: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not done():
        if time.monotonic() - started > LIMIT_S:
            return float("nan")
        time.sleep(0.005)
    return time.monotonic() - started


def measure(
    server: MediaServer,
    fail: Callable[[], None],
    mend: Callable[[], None],
    runs: int,
    decodes_old: bool = False,
) -> str:
    outputs, stop = Outputs([PushSettings(url=server.url)]), threading.Event()
    feeder = threading.Thread(target=feed, args=(outputs, stop))
    feeder.start()
    noticed, back = [], []
    for _ in range(runs):
        server.wait_for_frames(90, LIMIT_S)  # steady, so that the next try is a quick one
        fail()
        noticed.append(waited(lambda: outputs.status()[0].state == "retrying"))
        time.sleep(DOWN_S)
        mend()
        mended, taken = time.monotonic(), outputs.status()[0].frames
        if decodes_old:
            waited(lambda taken=taken: outputs.status()[0].frames >= taken + 20)  # type: ignore[misc]
        else:
            server.wait_for_frames(1, LIMIT_S)
        back.append(time.monotonic() - mended)
    stop.set()
    feeder.join()
    outputs.close()
    return (
        f"{runs} | {statistics.median(noticed):.2f}, {max(noticed):.2f} | "
        f"{statistics.median(back):.2f}, {max(back):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kinds", default="rtsp,srt")
    arguments = parser.parse_args()
    runs = arguments.runs
    print("| server | fault | runs | noticed, s (median, max) | back, s (median, max) |")
    print("|---|---|---|---|---|")
    for kind in arguments.kinds.split(","):
        with MediaServer(kind) as server:
            row = measure(server, server.kill, server.start, runs)
        print(f"| {kind} | killed, started again | {row}", flush=True)
        with MediaServer(kind) as server:
            row = measure(
                server,
                lambda server=server: server.send(signal.SIGSTOP),  # type: ignore[misc]
                lambda server=server: server.send(signal.SIGCONT),  # type: ignore[misc]
                runs,
                decodes_old=True,
            )
        print(f"| {kind} | frozen, thawed | {row}", flush=True)
        if (problem := Namespace.problem()) is not None:
            print(f"(no network that swallows everything: {problem})")
            continue
        with Namespace() as namespace, MediaServer(kind, namespace=namespace) as server:
            row = measure(server, namespace.cut, namespace.mend, runs)
        print(f"| {kind} | network swallows everything | {row}", flush=True)


if __name__ == "__main__":
    main()
