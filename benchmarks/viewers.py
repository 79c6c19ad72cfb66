"""What viewers of the RTSP output get and cost: latency, load, coming and going, stalling, attacks, players.

    .venv/bin/python -m benchmarks.viewers latency [--seconds 30]
    .venv/bin/python -m benchmarks.viewers load [--viewers 1,10,50] [--seconds 120]
    .venv/bin/python -m benchmarks.viewers churn [--cycles 200]
    .venv/bin/python -m benchmarks.viewers stall [--viewers 20]
    .venv/bin/python -m benchmarks.viewers attack [--passwords 1000]
    .venv/bin/python -m benchmarks.viewers players [--seconds 10]

Everything is on this machine: the daemon in a process of its own (a drawn person with the time of capture printed on
it, 1280x720 at 30 frames a second, the shipped model), viewers over loopback. Capture to client is until the picture
is decoded (FFmpeg's decoder, one thread, nothing held back). --json prints one object instead of tables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import players
from benchmarks.first_viewer import CLIENTS, FirstViewer
from tests.e2e.daemon import Daemon
from tests.rtsp_client import RtspClient

WIDTH, HEIGHT, FPS = 1280, 720, 30
PASSWORD = "of the benchmark"
ENCODER_THREADS = ("source:src", "x264enc", "openh264")
"""Names of the threads that encode: x264's own inherit that of the thread that feeds it."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """What the daemon holds, and has used so far."""

    rss_mb: float
    threads: int
    files: int
    cpu_s: float
    encoder_cpu_s: float


def usage(pid: int) -> Usage:
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    cpu = encoder = 0.0
    for task in (process / "task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            text = (task / "stat").read_text()
            name, numbers = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
            seconds = (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
            encoder += seconds if name.startswith(ENCODER_THREADS) else 0
    numbers = (process / "stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
    files = len(list((process / "fd").iterdir()))
    return Usage(int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), files, cpu, encoder)


@contextmanager
def daemon(size: tuple[int, int] = (WIDTH, HEIGHT), **output: Any) -> Iterator[Daemon]:
    config = {
        "source": {"type": "synthetic", "width": size[0], "height": size[1], "fps": FPS, "motion": "sway"},
        "background": {"type": "colour", "colour": "#206030"},
        "outputs": [{"type": "rtsp", "port": 0, "max_viewers": 100, **output}],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "password").write_text(PASSWORD)
        with Daemon(Path(folder), config) as running:
            try:
                yield running
                assert running.process.poll() is None, "the daemon ended"
                assert not any("Traceback" in line or "CRITICAL" in line for line in running.log), running.log
            except BaseException:
                print(*running.log[-40:], sep="\n", file=sys.stderr)
                raise


def run_for(seconds: float, pid: int) -> Result:
    """CPU of the daemon meanwhile, in per cent of one core."""
    before, started = usage(pid), time.monotonic()
    time.sleep(seconds)
    after, took = usage(pid), time.monotonic() - started
    return {
        "cpu_percent": round(100 * (after.cpu_s - before.cpu_s) / took, 1),
        "encoder_cpu_percent": round(100 * (after.encoder_cpu_s - before.encoder_cpu_s) / took, 1),
        "rss_mb": [round(before.rss_mb, 1), round(after.rss_mb, 1)],
        "threads": [before.threads, after.threads],
        "files": [before.files, after.files],
    }


def latency(arguments: argparse.Namespace) -> list[Result]:
    """One viewer: how old is what he sees, by what he watches with; what the encoder costs apart from all else."""
    results = []
    with daemon() as it:
        time.sleep(3)
        idle = run_for(min(10, arguments.seconds), it.process.pid)
        for name, client in CLIENTS.items():
            viewer = FirstViewer(it.url, client)
            time.sleep(3)
            cost = run_for(arguments.seconds, it.process.pid)
            viewer.close()
            encoder_ms = cost["encoder_cpu_percent"] / 100 / FPS * 1000
            results.append(
                {
                    "client": name,
                    **viewer.figures(),
                    "cpu_percent": cost["cpu_percent"],
                    "cpu_percent_unwatched": idle["cpu_percent"],
                    "encoder_cpu_percent": cost["encoder_cpu_percent"],
                    "encoder_ms_per_frame": round(encoder_ms, 2),
                }
            )
    return results


def load(arguments: argparse.Namespace) -> list[Result]:
    """So many viewers over TCP: what the first of them sees, what they cost."""
    results = []
    for count in (int(word) for word in arguments.viewers.split(",")):
        with daemon() as it:
            first = FirstViewer(it.url)
            crowd = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.crowd", it.url, str(count - 1)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                assert crowd.stdout is not None
                assert crowd.stdout.readline().strip() == "playing"
                cost = run_for(arguments.seconds, it.process.pid)
            finally:
                crowd.terminate()
                crowd.wait()
            first.close()
            results.append({"viewers": count, **first.figures(), **cost})
    return results


def churn(arguments: argparse.Namespace) -> list[Result]:
    """Viewers who come, see pictures and go, half of them without a word."""
    with daemon((640, 360)) as it:

        def cycle(number: int) -> None:
            with RtspClient(it.url) as viewer:
                viewer.play()
                for _ in range(5):
                    viewer.packet()
                if number % 2:
                    viewer.ask("TEARDOWN")

        rounds = [usage(it.process.pid)]
        for number in range(arguments.cycles + 10):
            cycle(number)
            if number == 9 or number % 50 == 9:
                time.sleep(2)
                rounds.append(usage(it.process.pid))
        return [
            {
                "cycles": 10 + 50 * index if index else 0,
                "rss_mb": round(one.rss_mb, 1),
                "threads": one.threads,
                "files": one.files,
            }
            for index, one in enumerate(rounds)
        ]


def stall(arguments: argparse.Namespace) -> list[Result]:
    """Viewers who stop reading, beside one who reads."""
    with daemon() as it:
        first = FirstViewer(it.url)
        time.sleep(3)
        before = usage(it.process.pid)
        stalled = [RtspClient(it.url, receive_buffer=4096) for _ in range(arguments.viewers)]
        for client in stalled:
            client.play()
        started, largest, gone_s = time.monotonic(), before.rss_mb, float("nan")
        while time.monotonic() - started < 40:
            time.sleep(0.5)
            largest = max(largest, usage(it.process.pid).rss_mb)
            text = "\n".join(it.log)
            if text.count("stopped reading") >= arguments.viewers:
                gone_s = time.monotonic() - started
                break
        time.sleep(5)
        after = usage(it.process.pid)
        for client in stalled:
            client.close()
        first.close()
        return [
            {
                "stalled": arguments.viewers,
                "all_disconnected_after_s": round(gone_s, 1),
                "rss_mb": [round(before.rss_mb, 1), round(largest, 1), round(after.rss_mb, 1)],
                "threads": [before.threads, after.threads],
                "files": [before.files, after.files],
                **first.figures(),
            }
        ]


def attack(arguments: argparse.Namespace) -> list[Result]:
    """Rubbish, half requests, too much of everything, wrong passwords: beside a viewer with the right one."""
    users = [{"name": "anna", "password_file": "password"}]
    with daemon((640, 360), users=users) as it:
        url = it.url.replace("://", f"://anna:{PASSWORD}@".replace(" ", "%20"))
        first = FirstViewer(url)
        time.sleep(3)
        before, results = usage(it.process.pid), []
        address = ("127.0.0.1", int(it.url.rsplit(":", 1)[1].split("/")[0]))

        def phase(name: str, times: int, act: Callable[[], int | None]) -> None:
            statuses: dict[str, int] = {}
            for _ in range(times):
                key = str(act())
                statuses[key] = statuses.get(key, 0) + 1
            now = usage(it.process.pid)
            results.append(
                {
                    "attack": name, "times": times, "answers": statuses, "rss_mb": round(now.rss_mb, 1),
                    "threads": now.threads, "files": now.files, "viewer_pictures": len(first.arrivals_ns),
                }
            )  # fmt: skip

        def send(data: bytes, waits: bool = True) -> Callable[[], None]:
            def act() -> None:
                with contextlib.suppress(OSError), socket.create_connection(address, timeout=0.5) as raw:
                    raw.sendall(data)
                    if waits:
                        raw.recv(4096)

            return act

        def wrong_password() -> int:
            with RtspClient(it.url, "anna", "wrong") as client:
                return client.ask("DESCRIBE")[0]

        def no_password() -> int:
            with RtspClient(it.url) as client:
                statuses = {client.ask("DESCRIBE")[0], client.setup(), client.ask("PLAY")[0]}
                assert 200 not in statuses, statuses
                return max(statuses)

        random = np.random.default_rng(1)
        phase("nothing yet", 0, lambda: None)
        phase("random bytes", 100, send(random.bytes(3000), waits=False))
        phase(
            "another protocol",
            100,
            send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500, False),
        )
        phase("connect and leave", 200, send(b"", False))
        long_header = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"
        phase("header of 200 kB", 10, send(long_header, False))
        phase("10,000 headers", 10, send(b"OPTIONS * RTSP/1.0\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", False))
        phase(
            "body of 1 GB",
            20,
            send(b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 999999999\r\n\r\n", False),
        )
        held = [socket.create_connection(address, timeout=5) for _ in range(60)]
        for one in held:
            one.sendall(b"DESCRIBE rtsp://127.0.0.1/li")
        phase("60 half requests, held", 0, lambda: None)
        time.sleep(13)
        phase("the same, 13 s later", 0, lambda: None)
        for one in held:
            one.close()
        phase("no password", 50, no_password)
        phase("wrong password", arguments.passwords, wrong_password)
        time.sleep(12)
        phase("12 s later", 0, lambda: None)
        pictures = len(first.arrivals_ns)
        time.sleep(2)
        assert len(first.arrivals_ns) > pictures + 20, (
            "the viewer with the right password sees nothing any more"
        )
        first.close()
        print(f"before: {before}", file=sys.stderr)
        return results


def play(arguments: argparse.Namespace) -> list[Result]:
    """Common players, each over TCP and UDP, without and with a password, with TLS where they can."""
    results: list[Result] = []
    users = [{"name": "anna", "password_file": "password"}]
    tls = {"certificate": "cert.pem", "key": "key.pem", "self_signed": True}
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("open", {}), ("password", {"users": users}), ("password and TLS", {"users": users, "tls": tls}),
    )  # fmt: skip
    for kind, output in kinds:
        with daemon((640, 360), **output) as it:
            url = it.url
            if "users" in output:
                url = url.replace("://", f"://anna:{PASSWORD}@".replace(" ", "%20"))
            for player in players.ALL:
                for transport in ("tcp",) if "tls" in output else ("tcp", "udp"):
                    said = player.play(url, transport, arguments.seconds)
                    results.append({"player": player.name, "stream": kind, "transport": transport, **said})
                    print(results[-1], file=sys.stderr, flush=True)
    return results


def table(results: list[Result]) -> str:
    """Markdown."""
    keys = list(dict.fromkeys(key for result in results for key in result))

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return " -> ".join(str(one) for one in value)
        if isinstance(value, dict):
            return ", ".join(f"{key}: {one}" for key, one in value.items())
        return str(value)

    rows = [keys, ["---"] * len(keys), *([cell(result.get(key, "")) for key in keys] for result in results)]
    return "\n".join("| " + " | ".join(key.replace("_", " ") for key in row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    commands = parser.add_subparsers(required=True)
    for name, handler, options in (
        ("latency", latency, {"seconds": 30.0}),
        ("load", load, {"viewers": "1,10,50", "seconds": 120.0}),
        ("churn", churn, {"cycles": 200}),
        ("stall", stall, {"viewers": 20}),
        ("attack", attack, {"passwords": 1000}),
        ("players", play, {"seconds": 10.0}),
    ):
        command = commands.add_parser(name, help=str(handler.__doc__))
        for option, default in options.items():
            command.add_argument(f"--{option}", type=type(default), default=default)
        command.set_defaults(handler=handler, name=name)
    arguments = parser.parse_args()
    results = arguments.handler(arguments)
    print(json.dumps({arguments.name: results}) if arguments.json else table(results))


if __name__ == "__main__":
    main()
