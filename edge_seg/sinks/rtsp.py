"""The RTSP server in this process: one encoder for all viewers, and none while nobody watches."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from edge_seg import encoders, gstreamer
from edge_seg.encoders import Encoding
from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.types import I420

log = logging.getLogger(__name__)

CLOSE_DEADLINE_S = 1.0


@dataclass(frozen=True)
class RtspSettings(Encoding):
    """An RTSP server that viewers connect to."""

    type: Literal["rtsp"] = "rtsp"
    address: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 is every network this machine is in."""
    port: Annotated[int, Ge(0), Le(65535)] = 8554
    """0 takes any free port and logs which."""
    path: str = "/live"


class RtspSink(Sink):
    """Serves the pictures at rtsp://address:port/path to any number of viewers."""

    name = "rtsp"

    def __init__(self, settings: RtspSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._appsrc: Any = None
        self._media: Any = None
        self._loop: Any = None
        self._thread: threading.Thread | None = None
        self._server: Any = None
        self._factory: Any = None
        self._attached: Any = None
        self._bound_port = settings.port

    @property
    def url(self) -> str:
        host = self._settings.address
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        return f"rtsp://{f'[{host}]' if ':' in host else host}:{self._bound_port}{self._settings.path}"

    @property
    def wants_pictures(self) -> bool:  # type: ignore[override]
        """Whether somebody watches, that is, whether pictures are being encoded."""
        return self._appsrc is not None

    @property
    def encoder(self) -> str | None:
        return self._encoder.element if self.wants_pictures else None

    def open(self, output: OutputFormat) -> None:
        gst, server_module, glib, _ = gstreamer.load("GstRtspServer", "GLib", "GstApp")
        settings = self._settings
        self._gst, self._output = gst, output
        self._encoder = encoders.choose(
            wanted=settings.encoder, codec=settings.codec, size=(output.width, output.height)
        )

        server = server_module.RTSPServer()
        server.set_address(settings.address)
        server.set_service(str(settings.port))
        factory = server_module.RTSPMediaFactory()
        factory.set_shared(True)
        factory.set_latency(0)
        factory.set_suspend_mode(server_module.RTSPSuspendMode.NONE)
        factory.set_launch(self._launch(output))
        factory.connect("media-configure", self._on_media)
        server.get_mount_points().add_factory(settings.path, factory)
        server.connect("client-connected", self._on_client)
        self._server, self._factory = server, factory

        context = glib.MainContext.new()
        # attach() reports neither a busy port nor a refused one: it returns 0.
        identifier = server.attach(context)
        if identifier == 0:
            raise SinkError(_why_not_bound(settings.address, settings.port), permanent=True)
        self._attached = context.find_source_by_id(identifier)
        self._bound_port = server.get_bound_port()
        self._loop = glib.MainLoop.new(context, False)
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="rtsp", daemon=True)
        self._thread.start()
        log.info("serving %s (%dx%d)", self.url, output.width, output.height)

    def reformat(self, output: OutputFormat) -> None:
        self._output = output
        self._factory.set_launch(self._launch(output))
        appsrc = self._appsrc
        if appsrc is not None:
            appsrc.set_caps(self._gst.Caps.from_string(_caps(output)))

    def push(self, picture: I420, captured_ns: int) -> None:
        appsrc = self._appsrc
        if appsrc is None:
            return
        # The pipeline's clock is the monotonic one: the capture time itself is the time stamp, so that
        # whatever jitter processing adds stays out of the viewers' playback.
        pts_ns = captured_ns - appsrc.get_base_time()
        if appsrc.get_base_time() == 0 or pts_ns < 0:
            return  # not playing yet
        appsrc.push_buffer(gstreamer.to_buffer(picture, pts_ns))

    def close(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        self._appsrc = None
        self._attached.destroy()
        self._server.client_filter(lambda _server, _client: self._filter_result_remove())
        # By way of the loop itself: a quit before it runs would be lost.
        _, glib = gstreamer.load("GLib")
        last = glib.idle_source_new()
        last.set_callback(lambda *_: loop.quit())
        last.attach(loop.get_context())
        thread.join(CLOSE_DEADLINE_S)
        if thread.is_alive():
            log.warning("the RTSP server did not end within %g s; leaving it", CLOSE_DEADLINE_S)
        # The port is free once nothing refers to the server any more.
        self._server = self._factory = self._attached = self._media = None

    def _filter_result_remove(self) -> Any:
        _, server_module = gstreamer.load("GstRtspServer")
        return server_module.RTSPFilterResult.REMOVE

    def _launch(self, output: OutputFormat) -> str:
        encoder = self._encoder
        text = encoder.launch(self._settings.for_format(output))
        # config-interval belongs on the parser: on the payloader it breaks multi-slice pictures for FFmpeg.
        return (
            "( appsrc name=source is-live=true format=time block=false max-buffers=2 max-bytes=0 max-time=0 "
            f"leaky-type=downstream caps={_caps(output)} ! {text} ! {encoder.parser} config-interval=-1 ! "
            f"{encoder.payloader} name=pay0 pt=96 aggregate-mode=zero-latency )"
        )

    def _on_media(self, _factory: Any, media: Any) -> None:
        appsrc = media.get_element().get_by_name("source")
        appsrc.set_caps(self._gst.Caps.from_string(_caps(self._output)))
        media.connect("unprepared", self._on_unprepared)
        with self._lock:
            self._media, self._appsrc = media, appsrc
        log.info("a viewer came: encoding")

    def _on_unprepared(self, media: Any) -> None:
        with self._lock:
            if media is not self._media:
                return
            self._media = self._appsrc = None
        log.info("the last viewer left: encoding no more")

    def _on_client(self, _server: Any, client: Any) -> None:
        client.connect("play-request", self._on_play)

    def _on_play(self, _client: Any, _context: Any) -> None:
        with self._lock:
            media = self._media
        if media is None:
            return
        _, video = gstreamer.load("GstVideo")
        encoder = media.get_element().get_by_name("encoder")
        event = video.video_event_new_upstream_force_key_unit(self._gst.CLOCK_TIME_NONE, True, 0)
        encoder.get_static_pad("src").send_event(event)


def _serve(loop: Any) -> None:
    context = loop.get_context()
    context.push_thread_default()
    try:
        loop.run()
    finally:
        context.pop_thread_default()


def _caps(output: OutputFormat) -> str:
    return gstreamer.raw_caps(output.width, output.height, output.fps, output.matrix)


def _why_not_bound(address: str, port: int) -> str:
    """Binds by itself, to learn what GStreamer keeps to itself."""
    where = f"the RTSP output cannot listen on {address}:{port}"
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, sockaddr = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(sockaddr)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"{where}: the port is in use; stop what uses it (`ss -ltnp`) or set another outputs.port"
        if error.errno == errno.EACCES:
            return (
                f"{where}: ports below 1024 need rights this user has not; set outputs.port to 1024 or more"
            )
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{where}: no interface has that address; set outputs.address to one that `ip addr` lists"
        return f"{where}: {error.strerror or error}"
    return f"{where}: GStreamer's RTSP server refused it without a reason"
