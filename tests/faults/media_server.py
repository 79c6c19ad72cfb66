"""A media server that pictures are published to, in a process of its own that can be killed, started again, frozen.

    python -m tests.faults.media_server rtsp ADDRESS PORT USER PASSWORD
    python -m tests.faults.media_server srt ADDRESS PORT "" PASSPHRASE

It decodes what it is given and prints its port, then the mean luma of each picture.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_seg import gstreamer
from tests.faults.namespace import Namespace
from tests.faults.server_process import ServerProcess, protect


class MediaServer(ServerProcess):
    """Starts it, counts what it got, kills it."""

    def __init__(
        self, kind: str, user: str = "", password: str = "", namespace: Namespace | None = None
    ) -> None:
        super().__init__("tests.faults.media_server", () if namespace is None else namespace.prefix)
        self._kind, self._user, self._password = kind, user, password
        self._address = "127.0.0.1" if namespace is None else namespace.far
        self.port = free_udp_port() if kind == "srt" else 0
        self.frames: list[tuple[float, int]] = []
        """When each picture was decoded (monotonic, s), and its mean luma."""
        self._changed = threading.Condition()

    def _arguments(self) -> Sequence[str]:
        return self._kind, self._address, str(self.port), self._user, self._password

    @property
    def url(self) -> str:
        path = "/camera" if self._kind == "rtsp" else ""
        return f"{self._kind}://{self._address}:{self.port}{path}"

    def start(self) -> None:
        super().start()
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, lines: Any) -> None:
        for line in lines:
            with self._changed:
                self.frames.append((time.monotonic(), int(line)))
                self._changed.notify_all()

    def wait_for_frames(self, count: int, timeout_s: float = 30) -> bool:
        """Waits until so many more pictures have come."""
        with self._changed:
            until = len(self.frames) + count
            return self._changed.wait_for(lambda: len(self.frames) >= until, timeout_s)


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


DECODE = (
    "avdec_h264 max-threads=1 ! videoconvert ! video/x-raw,format=I420 "
    "! fakesink name=out sync=false signal-handoffs=true"
)


def _on_picture(_sink: Any, buffer: Any, _pad: Any) -> None:
    gst = gstreamer.load()
    with buffer.map(gst.MapFlags.READ) as mapped:
        luma = np.frombuffer(mapped.data, np.uint8)[: mapped.size * 2 // 3]
    print(round(float(luma.mean())), flush=True)


def _serve_rtsp(address: str, port: int, user: str, password: str) -> None:
    _, rtsp, glib = gstreamer.load("GstRtspServer", "GLib")
    server = rtsp.RTSPServer()
    server.set_address(address)
    server.set_service(str(port))
    factory = rtsp.RTSPMediaFactory()
    factory.set_transport_mode(rtsp.RTSPTransportMode.RECORD)
    factory.set_latency(0)
    factory.set_launch(f"( rtph264depay name=depay0 ! h264parse ! {DECODE} )")
    factory.connect(
        "media-configure",
        lambda _f, media: media.get_element().get_by_name("out").connect("handoff", _on_picture),
    )
    if user:
        protect(server, factory, "publisher", user, password, digest=True)
    server.get_mount_points().add_factory("/camera", factory)
    assert server.attach(None)
    print(server.get_bound_port(), flush=True)
    glib.MainLoop().run()


def _listen_srt(address: str, port: int, passphrase: str) -> None:
    gst = gstreamer.load()
    secret = f"passphrase={passphrase} pbkeylen=16" if passphrase else ""
    print(port, flush=True)
    while True:  # srtsrc ends with its caller; a server goes on with the next one
        pipeline = gst.parse_launch(
            f'srtsrc uri="srt://{address}:{port}?mode=listener" latency=20 {secret} ! tsdemux ! h264parse ! {DECODE}'
        )
        pipeline.get_by_name("out").connect("handoff", _on_picture)
        pipeline.set_state(gst.State.PLAYING)
        types = gst.MessageType.ERROR | gst.MessageType.EOS
        pipeline.get_bus().timed_pop_filtered(gst.CLOCK_TIME_NONE, types)
        pipeline.set_state(gst.State.NULL)


if __name__ == "__main__":
    if sys.argv[1] == "rtsp":
        _serve_rtsp(sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
    else:
        _listen_srt(sys.argv[2], int(sys.argv[3]), sys.argv[5])
