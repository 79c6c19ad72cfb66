"""What a camera that fails costs: time to notice, to recover, frames lost, viewers kept, memory before and after.

    .venv/bin/python -m benchmarks.source_faults [--restarts 50] [--stall-s 30] [--only proxy,namespace,file]

A camera in a process of its own (RTSP, 640x360 at 15 frames a second) -> a proxy that can be cut, or, as root, a
network namespace that can be -> the daemon -> two viewers that connect once. Noticed and recovered are what the first
viewer sees: the card, and the person again, from the moment that the fault was injected or mended.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_seg.sources import SyntheticSettings
from edge_seg.sources.synthetic import draw
from tests import clips
from tests.e2e.daemon import Daemon
from tests.faults.namespace import Namespace
from tests.faults.proxy import Proxy
from tests.faults.rtsp_server import RtspServer
from tests.faults.viewer import Viewer, is_live, is_slate

STALE_MS = 1000
FPS = 15
KINDS = ("proxy", "namespace", "file")


@dataclass
class Rig:
    daemon: Daemon
    viewers: list[Viewer]

    def memory_mb(self) -> float:
        """Resident set of the daemon."""
        for line in Path(f"/proc/{self.daemon.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return float("nan")

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.daemon.process.pid}/task").iterdir()))

    def several(
        self, name: str, count: int, inject: Callable[[], None], mend: Callable[[], None], hold_s: float = 0.0
    ) -> None:
        """So many faults of a kind, and their row of the table."""
        before = self.memory_mb(), self.threads()
        print_row(name, [fault(self, inject, mend, hold_s) for _ in range(count)], self, before)


@dataclass
class Outcome:
    noticed_s: float
    recovered_s: float
    lost: int


@contextmanager
def rig(source: dict[str, Any]) -> Iterator[Rig]:
    config = {
        "source": {"stale_ms": STALE_MS, **source},
        "background": {"type": "colour", "colour": "#206030"},
        "latency": {"budget_ms": 90},
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Daemon(Path(folder), config) as daemon,
        Viewer(daemon.url) as first,
        Viewer(daemon.url) as second,
    ):
        try:
            for viewer in (first, second):
                viewer.wait_for(is_live, timeout_s=60)
            yield Rig(daemon, [first, second])
        except AssertionError:
            print("", *daemon.log[-40:], sep="\n")
            raise


def fault(rig: Rig, inject: Callable[[], None], mend: Callable[[], None], hold_s: float = 0.0) -> Outcome:
    """One fault: how long until the viewer sees the card, and, once it is mended, the person again."""
    viewer = rig.viewers[0]
    time.sleep(1.5)  # steady before it begins
    last = [seen.seq for seen in viewer.seen if seen.seq is not None][-1]
    injected = time.monotonic()
    inject()
    noticed = viewer.wait_for(is_slate, since=injected, timeout_s=60).at - injected
    time.sleep(hold_s)
    mended = time.monotonic()
    mend()
    back = viewer.wait_for(is_live, since=mended, timeout_s=90)
    assert back.seq is not None
    return Outcome(noticed, back.at - mended, back.seq - last - 1 if back.seq > last else -1)


def print_head() -> None:
    print(
        f"{'':34} {'':4} {'noticed, s':^15} {'recovered, s':^15} {'lost':>7} kept {'memory, MB':^15} threads"
    )
    print(f"{'fault':34} {'runs':>4} {'median':>7} {'max':>7} {'median':>7} {'max':>7} {'median':>7}")


def print_row(name: str, outcomes: list[Outcome], rig: Rig, before: tuple[float, int]) -> None:
    noticed = [outcome.noticed_s for outcome in outcomes]
    recovered = [outcome.recovered_s for outcome in outcomes]
    lost = [outcome.lost for outcome in outcomes if outcome.lost >= 0]
    kept = sum(viewer.is_connected for viewer in rig.viewers)
    print(
        f"{name:34} {len(outcomes):4} {statistics.median(noticed):7.2f} {max(noticed):7.2f} "
        f"{statistics.median(recovered):7.2f} {max(recovered):7.2f} "
        f"{statistics.median(lost) if lost else float('nan'):7.0f} {kept}/{len(rig.viewers)} "
        f"{before[0]:7.1f} {rig.memory_mb():7.1f} {before[1]:4} {rig.threads():4}",
        flush=True,
    )


def over_a_proxy(restarts: int, stall_s: float) -> None:
    with RtspServer(fps=FPS) as server, Proxy(server.port) as proxy:
        url = f"rtsp://127.0.0.1:{proxy.port}/live"
        with rig({"type": "rtsp", "url": url, "repeats": "lost"}) as it:

            def go() -> None:
                server.tell("go")

            it.several("no more frames", 3, lambda: server.tell("stall"), go)
            it.several(f"no more frames for {stall_s:g} s", 1, lambda: server.tell("stall"), go, stall_s)
            it.several("the same picture again and again", 3, lambda: server.tell("freeze"), go)
            it.several("garbage for H.264", 3, lambda: server.tell("garbage"), go)
            it.several("network swallows everything", 3, proxy.cut, proxy.mend)
            it.several("server killed, started again", restarts, server.kill, server.start)
            switch_sizes(it, server)


def switch_sizes(rig: Rig, server: RtspServer) -> None:
    before = rig.memory_mb(), rig.threads()
    gaps = []
    for size in [(480, 360), (640, 360)] * 5:
        began = time.monotonic()
        server.tell(f"size {size[0]} {size[1]}")
        new = rig.viewers[0].wait_for(
            lambda seen, size=size: is_live(seen) and seen.size == size, since=began
        )
        old = [seen.at for seen in rig.viewers[0].seen if is_live(seen) and seen.at < new.at][-1]
        gaps.append(Outcome(0.0, new.at - old, -1))
        time.sleep(1)
    print_row("another size (gap between pictures)", gaps, rig, before)


def over_a_namespace() -> None:
    """Packets are dropped by the kernel of the camera's end: no end of a connection learns of it."""
    problem = Namespace.problem()
    if problem is not None:
        print(f"packets dropped: not tried, {problem}")
        return
    for transport in ("tcp", "udp"):
        with (
            Namespace() as namespace,
            RtspServer(fps=FPS, address=namespace.far, prefix=namespace.prefix) as server,
            rig({"type": "rtsp", "url": server.url, "transport": transport}) as it,
        ):
            it.several(f"packets dropped ({transport})", 5, namespace.cut, namespace.mend)
            it.several(f"packets dropped for 30 s ({transport})", 1, namespace.cut, namespace.mend, 30)


def with_files() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mkv"
        settings = SyntheticSettings(width=640, height=360, fps=FPS, motion="sway", noise=1)
        clips.write_clip(path, lambda index: draw(settings, index, 0).picture.planes, 10 * FPS, fps=FPS)
        whole = path.read_bytes()
        with rig({"type": "file", "path": str(path)}) as it:
            ends(it, "file that ends", 5)

            def put_back() -> None:
                spare = path.with_suffix(".new")
                spare.write_bytes(whole)
                spare.replace(path)

            it.several("file emptied while it plays", 3, lambda: os.truncate(path, 0), put_back)
            os.truncate(path, len(whole) * 6 // 10)
            time.sleep(20)  # past the end of what is open now
            ends(it, "file cut off at 60 %, played anew", 3)


def ends(rig: Rig, name: str, count: int) -> None:
    """The clip's end, from its last picture to the card, and from there to its first picture."""
    before = rig.memory_mb(), rig.threads()
    outcomes = []
    viewer, since = rig.viewers[0], time.monotonic()
    for _ in range(count):
        card = viewer.wait_for(is_slate, timeout_s=60, since=since)
        last = [seen.at for seen in viewer.seen if is_live(seen) and seen.at < card.at][-1]
        back = viewer.wait_for(is_live, timeout_s=60, since=card.at)
        outcomes.append(Outcome(card.at - last, back.at - card.at, 0))
        since = back.at
    print_row(name, outcomes, rig, before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--stall-s", type=float, default=30)
    parser.add_argument("--only", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a namespace would be left behind
    print_head()
    for kind in arguments.only.split(","):
        if kind == "proxy":
            over_a_proxy(arguments.restarts, arguments.stall_s)
        elif kind == "namespace":
            over_a_namespace()
        elif kind == "file":
            with_files()


if __name__ == "__main__":
    main()
