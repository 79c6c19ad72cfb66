"""Players as people use them, each told to play for a while and to say how many pictures it got."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Player:
    """One player. `run` plays (url, transport, seconds) and returns how many pictures it showed."""

    name: str
    needs: str
    """The program that must be there, or `python:module`."""
    install: str
    run: Callable[[str, str, float], int]

    def play(self, url: str, transport: str, seconds: float) -> dict[str, Any]:
        """pictures and what went wrong, if anything."""
        kind, _, module = self.needs.partition(":")
        is_there = _has_module(module) if kind == "python" else shutil.which(self.needs) is not None
        if not is_there:
            return {"pictures": 0, "problem": f"not installed: {self.install}"}
        try:
            return {"pictures": self.run(url, transport, seconds), "problem": ""}
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError, ValueError) as error:
            return {"pictures": 0, "problem": _last_line(error)}


def _has_module(name: str) -> bool:
    return (
        subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode
        == 0
    )


def _last_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or getattr(error, "stdout", None) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:120]


def _ffmpeg(url: str, transport: str, seconds: float) -> int:
    done = subprocess.run(
        ["ffmpeg", "-hide_banner", "-nostdin", "-rtsp_transport", transport, "-i", url, "-t", str(seconds),
         "-f", "null", "-"],
        capture_output=True, text=True, timeout=seconds + 30, check=True,
    )  # fmt: skip
    return int(re.findall(r"frame=\s*(\d+)", done.stderr)[-1])


def _gstreamer(url: str, transport: str, seconds: float) -> int:
    # tls-validation-flags=0: the certificate of the benchmark is self-signed.
    done = subprocess.run(
        ["timeout", "-s", "INT", str(seconds + 2), "gst-launch-1.0", "-v", "-e", "rtspsrc", f"location={_plain(url)}",
         *_credentials(url), f"protocols={transport}", "latency=100", "tls-validation-flags=0", "!", "rtph264depay",
         "!", "avdec_h264", "!", "fpsdisplaysink", "video-sink=fakesink sync=true", "text-overlay=false"],
        capture_output=True, text=True, timeout=seconds + 30, check=False,
    )  # fmt: skip
    found = re.findall(r"rendered: (\d+)", done.stdout)
    if not found:
        raise ValueError(done.stderr or "no picture")
    return int(found[-1])


def _vlc(url: str, transport: str, seconds: float) -> int:
    prefix: list[str] = []
    if os.geteuid() == 0:  # VLC refuses to run as root
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    said = subprocess.run(
        [*prefix, "cvlc", "--rtsp-tcp", "--version"], capture_output=True, text=True, check=False
    )
    if "unknown option" in said.stderr + said.stdout:
        raise ValueError("this VLC is built without live555, its RTSP module (Debian's is)")
    options = ["--rtsp-tcp"] if transport == "tcp" else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seen.mp4"
        environment = {**os.environ, "HOME": folder}
        if prefix:
            os.chmod(folder, 0o777)
        subprocess.run(
            [*prefix, "cvlc", "-q", *options, *_vlc_credentials(url), "--network-caching=100", "--run-time",
             str(seconds), "--sout", f"#std{{access=file,mux=mp4,dst={out}}}", _plain(url), "vlc://quit"],
            capture_output=True, timeout=seconds + 30, check=True, env=environment,
        )  # fmt: skip
        done = subprocess.run(
            ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v", "-show_entries",
             "stream=nb_read_packets", "-of", "csv=p=0", out],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return int(done.stdout.strip().strip(",") or 0)


def _opencv(url: str, transport: str, seconds: float) -> int:
    program = f"""
        import time, cv2
        capture = cv2.VideoCapture({url!r}, cv2.CAP_FFMPEG)
        end, count = time.monotonic() + {seconds}, 0
        while time.monotonic() < end and capture.read()[0]:
            count += 1
        print(count)
    """
    environment = {**os.environ, "OPENCV_FFMPEG_CAPTURE_OPTIONS": f"rtsp_transport;{transport}"}
    return _python(program, seconds, environment)


def _pyav(url: str, transport: str, seconds: float) -> int:
    program = f"""
        import time, av
        viewer = av.open({url!r}, options={{"rtsp_transport": {transport!r}}}, timeout=20)
        end, count = time.monotonic() + {seconds}, 0
        for frame in viewer.decode(video=0):
            count += 1
            if time.monotonic() > end:
                break
        print(count)
    """
    return _python(program, seconds, dict(os.environ))


def _python(program: str, seconds: float, environment: dict[str, str]) -> int:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=seconds + 40, check=True, env=environment,
    )  # fmt: skip
    return int(done.stdout.split()[-1])


def _plain(url: str) -> str:
    """The URL without user and password."""
    scheme, rest = url.split("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _user_and_password(url: str) -> tuple[str, str] | None:
    name, at, _ = url.split("://")[1].rpartition("@")
    user, _, password = name.partition(":")
    return (user, password.replace("%20", " ")) if at else None


def _credentials(url: str) -> list[str]:
    found = _user_and_password(url)
    return [] if found is None else [f"user-id={found[0]}", f'user-pw="{found[1]}"']


def _vlc_credentials(url: str) -> list[str]:
    found = _user_and_password(url)
    return [] if found is None else ["--rtsp-user", found[0], "--rtsp-pwd", found[1]]


ALL = (
    Player("ffmpeg", "ffmpeg", "sudo apt install ffmpeg", _ffmpeg),
    Player("GStreamer rtspsrc", "gst-launch-1.0", "sudo apt install gstreamer1.0-tools", _gstreamer),
    Player("VLC", "cvlc", "sudo apt install vlc-bin vlc-plugin-base", _vlc),
    Player("OpenCV", "python:cv2", "pip install opencv-python-headless", _opencv),
    Player("PyAV", "python:av", "pip install av", _pyav),
)
