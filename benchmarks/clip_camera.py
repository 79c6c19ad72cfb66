"""A network camera that shows the bundled clip at 1280x720, 30 frames a second, for ever: encoded once, played again.

    python -m benchmarks.clip_camera PORT FILE

FILE is what `encode` has written. It costs next to nothing while it plays, so that a soak measures the daemon.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from edge_seg import gstreamer
from tests.faults.rtsp_server import serve
from tests.faults.server_process import ServerProcess

CLIP = Path(__file__).parent.parent / "config" / "demo" / "person.mp4"
SIZE = 1280, 720
FPS = 30


def encode(file: Path) -> None:
    """Cuts the clip to 16:9, scales it, and writes its access units."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = *SIZE, "yuv420p"
    encoder.framerate, encoder.time_base, encoder.bit_rate = Fraction(FPS), Fraction(1, FPS), 4_000_000
    options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "x264-params": "keyint=30:repeat-headers=1:annexb=1",
    }
    encoder.options = options
    units: list[bytes] = []
    with av.open(str(CLIP)) as clip:
        for frame in clip.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            rows = picture.shape[1] * SIZE[1] // SIZE[0]
            top = (picture.shape[0] - rows) // 2
            cut = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[top : top + rows]), format="rgb24")
            cut = cut.reformat(*SIZE, format="yuv420p")
            cut.pts = None
            units += [bytes(packet) for packet in encoder.encode(cut)]
    units += [bytes(packet) for packet in encoder.encode(None)]
    np.savez(
        file, sizes=np.array([len(unit) for unit in units]), data=np.frombuffer(b"".join(units), np.uint8)
    )


class ClipCamera:
    """Pushes one access unit after the other while somebody watches."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as found:
            sizes, data = found["sizes"], found["data"].tobytes()
        self._units = [data[end - size : end] for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
        self._appsrc: Any = None

    def obey(self, line: str) -> None:
        """It knows no orders."""

    def watched_by(self, appsrc: Any) -> None:
        self._appsrc = appsrc

    def run(self) -> None:
        gst = gstreamer.load()
        due = time.monotonic()
        while True:
            for unit in self._units:
                due = max(due + 1 / FPS, time.monotonic() - 0.5)
                time.sleep(max(0.0, due - time.monotonic()))
                if self._appsrc is None:
                    break  # who comes is to begin with the clip's first picture
                buffer = gst.Buffer.new_allocate(None, len(unit), None)
                buffer.fill(0, unit)
                self._appsrc.push_buffer(buffer)


class Process(ServerProcess):
    """The camera as a process that can be stopped, killed and started again."""

    def __init__(self, file: Path) -> None:
        super().__init__("benchmarks.clip_camera")
        self._file = file

    def _arguments(self) -> Sequence[str]:
        return str(self.port), str(self._file)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)


if __name__ == "__main__":
    serve("127.0.0.1", int(sys.argv[1]), ClipCamera(Path(sys.argv[2])))
