"""What a camera that fails costs: time to notice, to recover, frames lost, viewers kept, memory before and after.

    .venv/bin/python -m benchmarks.source_faults [--restarts 50] [--stall-s 30]

A camera in a process of its own (RTSP, 640x360 at 15 frames a second) -> a proxy that can be cut -> the daemon ->
two viewers that connect once. Noticed and recovered are what the first viewer sees: the card, and the person again,
from the moment that the fault was injected or mended.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.daemon import Daemon
from tests.faults.proxy import Proxy
from tests.faults.rtsp_server import RtspServer
from tests.faults.viewer import Viewer, is_live, is_slate

STALE_MS = 1000


@dataclass
class Rig:
    server: RtspServer
    proxy: Proxy
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


@dataclass
class Outcome:
    noticed_s: float
    recovered_s: float
    lost: int


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


def run(rig: Rig, restarts: int, stall_s: float) -> None:
    for viewer in rig.viewers:
        viewer.wait_for(is_live)
    server = rig.server
    print(
        f"{'':34} {'':4} {'noticed, s':^15} {'recovered, s':^15} {'lost':>7} kept {'memory, MB':^15} threads"
    )
    print(f"{'fault':34} {'runs':>4} {'median':>7} {'max':>7} {'median':>7} {'max':>7} {'median':>7}")

    def several(
        name: str, count: int, inject: Callable[[], None], mend: Callable[[], None], hold_s: float = 0.0
    ) -> None:
        before = rig.memory_mb(), rig.threads()
        print_row(name, [fault(rig, inject, mend, hold_s) for _ in range(count)], rig, before)

    def go() -> None:
        server.tell("go")

    several("no more frames", 3, lambda: server.tell("stall"), go)
    several(f"no more frames for {stall_s:g} s", 1, lambda: server.tell("stall"), go, stall_s)
    several("the same picture again and again", 3, lambda: server.tell("freeze"), go)
    several("garbage for H.264", 3, lambda: server.tell("garbage"), go)
    several("network swallows everything", 3, rig.proxy.cut, rig.proxy.mend)
    several("server killed, started again", restarts, server.kill, server.start)

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--stall-s", type=float, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, RtspServer() as server, Proxy(server.port) as proxy:
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
        with (
            Daemon(Path(folder), config) as daemon,
            Viewer(daemon.url) as first,
            Viewer(daemon.url) as second,
        ):
            try:
                run(Rig(server, proxy, daemon, [first, second]), arguments.restarts, arguments.stall_s)
            except AssertionError:
                print("", *daemon.log[-40:], sep="\n")
                raise


if __name__ == "__main__":
    main()
