"""Runs `edge-seg run` as users do: a process, a configuration file, signals."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import yaml

START_TIMEOUT_S = 60


class Daemon:
    """A running daemon with one RTSP output on a free port. Use as a context manager."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        config = {"outputs": [{"type": "rtsp", "port": 0}], **config}
        self.config_file = folder / "config.yaml"
        self.config_file.write_text(yaml.safe_dump(config))
        self.log: list[str] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Daemon:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_seg", "run", str(self.config_file)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        line = self.wait_for(r"serving (rtsps?://\S+)", START_TIMEOUT_S)
        self.url = line[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str, timeout_s: float = 30, since: int = 0) -> re.Match[str]:
        """The first line of the log, from line `since` on, that matches."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.log[since:] if (match := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self.process.poll() is not None, timeout_s)
            match = found()
        assert match is not None, "\n".join([f"the log has no {pattern!r}:", *self.log])
        return match

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Ends it. Returns its exit status and how long that took, in seconds."""
        started = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(30)
        took = time.monotonic() - started
        self._reader.join()
        return status, took


def watch(url: str, transport: str = "tcp") -> av.container.InputContainer:
    """An RTSP viewer of another family than the server: FFmpeg's libraries, told not to hold frames back."""
    viewer = av.open(
        url,
        options={"rtsp_transport": transport, "fflags": "nobuffer", "flags": "low_delay", "max_delay": "0"},
        timeout=30,
    )
    viewer.streams.video[0].codec_context.thread_count = 1
    return viewer
