"""A network camera that misbehaves on request: a process that serves H.264 and obeys lines on its standard input.

    size W H | rate FPS | freeze | stall | garbage | go

Its pictures are those of the synthetic source, with a readable number and time in each.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np

from edge_seg import gstreamer
from edge_seg.sources import SyntheticSettings
from edge_seg.sources.synthetic import draw
from edge_seg.types import I420
from tests.faults.server_process import ServerProcess, protect


class RtspServer(ServerProcess):
    """Starts it, talks to it, kills it."""

    def __init__(
        self,
        fps: int = 15,
        user: str = "",
        password: str = "",
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        """`prefix`: a command that runs it somewhere else, in a network namespace that has `address`."""
        super().__init__("tests.faults.rtsp_server", prefix)
        self.address = address
        self._fps, self._user, self._password = fps, user, password

    def _arguments(self) -> Sequence[str]:
        return self.address, str(self.port), str(self._fps), self._user, self._password

    @property
    def url(self) -> str:
        return f"rtsp://{self.address}:{self.port}/live"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


class Camera:
    """Draws, encodes and pushes pictures while somebody watches."""

    def __init__(self, fps: int) -> None:
        self._settings = SyntheticSettings(width=640, height=360, fps=fps, motion="sway", noise=1)
        self._state = "go"
        self._appsrc: Any = None
        self._encoder: Any = None
        self._index = 0
        self._frozen = False
        self._is_new = False
        draw(self._settings, 0, 0)

    def obey(self, line: str) -> None:
        word, *values = line.split()
        if word == "size":
            settings = replace(self._settings, width=int(values[0]), height=int(values[1]))
            draw(settings, 0, 0)  # what takes long is done before the switch
            self._settings = settings
        elif word == "rate":
            self._settings = replace(self._settings, fps=float(values[0]))
        else:
            self._state = word

    def watched_by(self, appsrc: Any) -> None:
        self._appsrc = appsrc
        self._is_new = True

    def run(self) -> None:
        settings, due, packet = self._settings, time.monotonic(), b""
        while True:
            due = max(due + 1 / self._settings.fps, time.monotonic() - 0.5)
            time.sleep(max(0.0, due - time.monotonic()))
            self._index += 1
            if self._state == "stall" or self._appsrc is None:
                continue
            wanted = self._settings  # once: another thread changes it
            picture = draw(wanted, self._index, time.monotonic_ns()).picture
            if settings is not wanted or self._is_new:
                settings, self._encoder, self._is_new = wanted, None, False
            if self._state != "freeze":
                self._frozen = False
                packet = self._encode(picture)
            elif not self._frozen:
                # The same key frame again and again: a driver that repeats its last picture.
                self._frozen, self._encoder = True, None
                packet = self._encode(picture)
            if self._state == "garbage":
                packet = b"\0\0\0\1\x41" + os.urandom(max(200, len(packet)))
            gst = gstreamer.load()
            buffer = gst.Buffer.new_allocate(None, len(packet), None)
            buffer.fill(0, packet)
            self._appsrc.push_buffer(buffer)

    def _encode(self, picture: I420) -> bytes:
        if self._encoder is None:
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuv420p"
            rate = Fraction(self._settings.fps).limit_denominator(1001)
            encoder.framerate, encoder.time_base, encoder.bit_rate = rate, 1 / rate, 2_000_000
            encoder.thread_count = 1
            encoder.options = {
                "preset": "ultrafast", "tune": "zerolatency", "x264-params": "keyint=15:repeat-headers=1:annexb=1",
            }  # fmt: skip
            self._encoder = encoder
        flat = np.concatenate([plane.reshape(-1) for plane in picture.planes])
        frame = av.VideoFrame.from_ndarray(flat.reshape(-1, picture.width), format="yuv420p")
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))


def serve(address: str, port: int, camera: Any, user: str = "", password: str = "") -> None:
    """Serves what `camera` pushes (`Camera`, or one alike) until its standard input ends."""
    _, rtsp, glib, _ = gstreamer.load("GstRtspServer", "GLib", "GstApp")
    server = rtsp.RTSPServer()
    server.set_address(address)
    server.set_service(str(port))
    factory = rtsp.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_latency(0)
    factory.set_launch(
        "( appsrc name=source is-live=true do-timestamp=true format=time block=false max-bytes=1000000 "
        "leaky-type=downstream caps=video/x-h264,stream-format=byte-stream,alignment=au ! "
        "h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )"
    )
    if user:
        protect(server, factory, "viewer", user, password, digest=False)
    factory.connect(
        "media-configure", lambda _f, media: camera.watched_by(media.get_element().get_by_name("source"))
    )
    server.get_mount_points().add_factory("/live", factory)
    assert server.attach(None)
    threading.Thread(target=camera.run, daemon=True).start()
    print(server.get_bound_port(), flush=True)
    loop = glib.MainLoop()
    threading.Thread(
        target=lambda: [camera.obey(line) for line in sys.stdin] and loop.quit(), daemon=True
    ).start()
    loop.run()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Camera(int(sys.argv[3])), sys.argv[4], sys.argv[5])
