"""The daemon for a long while, with all that happens to it: reloads, a camera that fails, viewers who stay.

    .venv/bin/python -m benchmarks.soak [--minutes 30] [--reload-s 60] [--json FILE]

1280x720 at 30 frames a second from the bundled clip over RTSP, two viewers in processes of their own who connect once.
Every minute the configuration is reloaded (background, matte, bit rate), every two minutes the camera fails: killed and
started again, stopped dead for a while, cut off the network. Prints what became of memory, threads and descriptors, and
a row for the table; ends with 1 when something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import yaml

from benchmarks import clip_camera
from tests.e2e.daemon import Daemon, watch
from tests.faults.proxy import Proxy

SETTLED_S = 30
"""The first sample is taken so long after the first picture: until then things are still made."""
SAMPLE_EVERY_S = 10
FAULT_S = 6
"""So long the camera is stopped, or cut off."""
STALE_MS = 1000

RELOADS: list[dict[str, Any]] = [
    {"background": {"type": "colour", "colour": "#206030"}, "matte": {"quality": "balanced"}},
    {"background": {"type": "blur", "strength": 0.3}},
    {"background": {"type": "image", "path": str(Path("config/demo/background.jpg").resolve())}},
    {"background": {"type": "colour", "colour": "#803020"}, "matte": {"quality": "fast"}},
    {"background": {"type": "blur", "strength": 0.9}, "matte": {"quality": "best"}},
    {"background": {"type": "video", "path": str(clip_camera.CLIP)}},
]
BITRATES = (0, 1500, 3000)


@dataclass(frozen=True)
class Sample:
    """The daemon at one moment."""

    at_s: float
    rss_mb: float
    threads: int
    descriptors: int


def sample(pid: int, started: float) -> Sample:
    process = Path(f"/proc/{pid}")
    found = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return Sample(
        round(time.monotonic() - started, 1),
        round(int(found[1]) / 1024, 1),
        len(list((process / "task").iterdir())),
        len(list((process / "fd").iterdir())),
    )


class Watcher:
    """A viewer in a process of its own. It connects once, and says what it saw when it is ended."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak", "--viewer", url], stdout=subprocess.PIPE, text=True
        )

    def end(self) -> dict[str, Any]:
        was_there = self._process.poll() is None
        self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate(timeout=30)
        return {"stayed": was_there, **json.loads(out or "{}")}


def view(url: str) -> None:
    """Decodes until it is told to end, or until the connection is lost."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    frames, last, longest_s = 0, 0.0, 0.0
    try:
        for _ in watch(url).decode(video=0):
            now = time.monotonic()
            longest_s = max(longest_s, now - last) if frames else 0.0
            frames, last = frames + 1, now
    except av.error.FFmpegError as error:
        print(f"viewer: {error}", file=sys.stderr)
    finally:
        print(json.dumps({"frames": frames, "longest_gap_s": round(longest_s, 2)}), flush=True)


class Rig:
    """Camera, network, daemon and viewers, and what is done to them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        clip_camera.encode(folder / "clip.npz")
        self.camera = stack.enter_context(clip_camera.Process(folder / "clip.npz"))
        self.proxy = stack.enter_context(Proxy(self.camera.port))
        self.config: dict[str, Any] = {
            "source": {
                "type": "rtsp",
                "url": f"rtsp://127.0.0.1:{self.proxy.port}/live",
                "stale_ms": STALE_MS,
            },
            "outputs": [{"type": "rtsp", "port": 0}],
            "web": {"port": 0, "page": False},
        }
        self.daemon = stack.enter_context(Daemon(folder, self.config))
        self.metrics = self.daemon.wait_for(r"http://127\.0\.0\.1:\d+")[0] + "/metrics"
        self.viewers = [Watcher(self.daemon.url) for _ in range(2)]
        for viewer in self.viewers:
            stack.callback(viewer._process.kill)
        self._reloads = zip(cycle(RELOADS), cycle(BITRATES), strict=False)
        self._faults = cycle(("killed", "frozen", "cut"))

    def reload(self) -> str:
        """The next configuration. Returns what the daemon says about it."""
        changes, bitrate = next(self._reloads)
        output = {**self.config["outputs"][0], "bitrate_kbps": bitrate}
        self.config = {**self.config, **changes, "outputs": [output]}
        lines = len(self.daemon.log)
        self.daemon.config_file.write_text(yaml.safe_dump(self.config))
        self.daemon.process.send_signal(signal.SIGHUP)
        return self.daemon.wait_for(r"reloaded in \d+ ms|reload refused.*|reload failed", since=lines)[0]

    def fail(self) -> str:
        """The camera fails, and is mended."""
        fault = next(self._faults)
        if fault == "killed":
            self.camera.kill()
            time.sleep(1)
            self.camera.start()
        elif fault == "frozen":
            self.camera.freeze()
            time.sleep(FAULT_S)
            self.camera.thaw()
        else:
            self.proxy.cut()
            time.sleep(FAULT_S)
            self.proxy.mend()
        return fault

    def scrape(self) -> str:
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            return str(answer.read().decode())


def quantile_ms(metrics: str, name: str, share: float) -> float:
    """From a histogram's cumulative buckets, by linear interpolation within one, as Prometheus does."""
    found = re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', metrics, re.MULTILINE)
    buckets = [(float(bound), float(count)) for bound, count in found]
    wanted, below, before = share * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and bound != float("inf"):
            within = (wanted - before) / max(count - before, 1.0)
            return round((below + (bound - below) * within) * 1000, 1)
        below, before = (bound if bound != float("inf") else below), count
    return round(below * 1000, 1)


def number(metrics: str, name: str) -> float:
    found = re.search(rf"^{name}(?:_total)? (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else float("nan")


def run(rig: Rig, minutes: float, reload_s: float) -> dict[str, Any]:
    daemon, started = rig.daemon, time.monotonic()
    samples: list[Sample] = []
    reloads: list[str] = []
    faults: list[str] = []
    next_reload_s = reload_s
    while time.monotonic() - started < minutes * 60:
        elapsed_s = time.monotonic() - started
        if (
            elapsed_s >= SETTLED_S
            and elapsed_s - (samples[-1].at_s if samples else -SAMPLE_EVERY_S) >= SAMPLE_EVERY_S
        ):
            samples.append(sample(daemon.process.pid, started))
        if elapsed_s >= next_reload_s:
            next_reload_s += reload_s
            reloads.append(rig.reload())
            if len(reloads) % 2 == 0:
                faults.append(rig.fail())
        time.sleep(0.5)
        assert daemon.process.poll() is None, "\n".join(["the daemon has ended:", *daemon.log[-40:]])
    metrics = rig.scrape()
    viewers = [viewer.end() for viewer in rig.viewers]
    third = max(1, len(samples) // 3)
    status, stopped_s = daemon.stop()
    return {
        "minutes": minutes,
        "start": asdict(samples[0]),
        "middle": asdict(samples[len(samples) // 2]),
        "end": asdict(samples[-1]),
        "rss_mb": [one.rss_mb for one in samples],
        "rss_mb_by_thirds": [
            round(statistics.median(one.rss_mb for one in part), 1)
            for part in (samples[:third], samples[third : 2 * third] or samples[-1:], samples[-third:])
        ],
        "most": {"rss_mb": max(one.rss_mb for one in samples), "threads": max(one.threads for one in samples),
                 "descriptors": max(one.descriptors for one in samples)},
        "frames_out": number(metrics, "edge_seg_frames_out"),
        "frames_dropped": number(metrics, "edge_seg_frames_dropped"),
        "deadline_misses": number(metrics, "edge_seg_deadline_misses"),
        "latency_ms": {"p50": quantile_ms(metrics, "edge_seg_latency_seconds", 0.5),
                       "p99": quantile_ms(metrics, "edge_seg_latency_seconds", 0.99)},
        "reloads": len(reloads),
        "reloads_refused": [text for text in reloads if not text.startswith("reloaded")],
        "faults": {name: faults.count(name) for name in sorted(set(faults))},
        "outages": number(metrics, "edge_seg_source_outages"),
        "viewers": viewers,
        "tracebacks": sum("Traceback" in line for line in daemon.log),
        "exit_status": status,
        "stopped_s": round(stopped_s, 2),
    }  # fmt: skip


def row(result: dict[str, Any]) -> str:
    def three(key: str) -> str:
        return ", ".join(f"{result[when][key]:g}" for when in ("start", "middle", "end"))

    stayed = sum(viewer["stayed"] for viewer in result["viewers"])
    gap_s = max(viewer.get("longest_gap_s", float("nan")) for viewer in result["viewers"])
    return (
        "| minutes | reloads | faults | memory, MB | threads | descriptors | latency p50, p99, ms | viewers kept "
        "| longest gap, s | tracebacks |\n|---|---|---|---|---|---|---|---|---|---|\n"
        f"| {result['minutes']:g} | {result['reloads']} | {sum(result['faults'].values())} | {three('rss_mb')} "
        f"| {three('threads')} | {three('descriptors')} | {result['latency_ms']['p50']}, {result['latency_ms']['p99']} "
        f"| {stayed} of {len(result['viewers'])} | {gap_s:.1f} | {result['tracebacks']} |"
    )


def is_well(result: dict[str, Any]) -> bool:
    return (
        result["tracebacks"] == 0
        and result["exit_status"] == 0
        and not result["reloads_refused"]
        and all(viewer["stayed"] for viewer in result["viewers"])
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--reload-s",
        type=float,
        default=60,
        help="seconds between reloads; every second one comes with a fault",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--viewer", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.viewer:
        view(arguments.viewer)
        return 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        rig = Rig(Path(folder), stack)
        try:
            result = run(rig, arguments.minutes, arguments.reload_s)
        except BaseException:
            print("", *rig.daemon.log[-40:], sep="\n", file=sys.stderr)
            raise
        if not is_well(result):
            print("", *rig.daemon.log[-80:], sep="\n", file=sys.stderr)
    text = json.dumps(result, indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)
    print(row(result))
    return 0 if is_well(result) else 1


if __name__ == "__main__":
    sys.exit(main())
