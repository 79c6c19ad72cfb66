"""A GstRtspServer in a thread of its own, with an end."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import SinkError
from edge_seg.sinks.rtsp.viewers import SPARE_CONNECTIONS, Viewers

log = logging.getLogger(__name__)

CLOSE_DEADLINE_S = 1.0
SWEEP_MS = 1000
DISCONNECT_S = 0.5
"""Viewers' connections end by themselves within this, in their own threads."""
CLIENT_THREADS = 4
"""For requests: one that takes long (a start of the encoder, rubbish) does not hold up the others."""
LARGEST_BODY = 16 * 1024
"""Bytes after the headers of a request; what viewers send has a hundred."""


class Server:
    """Listens from its construction until `close`."""

    def __init__(self, address: str, port: int, path: str, factory: Any, auth: Any, viewers: Viewers) -> None:
        """Serves `factory` at `path`. `auth` is an RTSPAuth or None. Raises SinkError (permanent)."""
        _, server_module, glib = gstreamer.load("GstRtspServer", "GLib")
        self._glib = glib
        self._viewers = viewers
        self.on_sweep: Callable[[], None] = lambda: None
        """Called every SWEEP_MS."""
        self._server = server = server_module.RTSPServer()
        server.set_address(address)
        server.set_service(str(port))
        server.set_content_length_limit(LARGEST_BODY)
        if auth is not None:
            server.set_auth(auth)
        self._path = path
        self.serve(factory)
        server.get_session_pool().set_max_sessions(viewers.max_viewers + SPARE_CONNECTIONS)
        server.get_thread_pool().set_max_threads(CLIENT_THREADS)
        server.connect("client-connected", lambda _server, client: viewers.came(client))
        context = glib.MainContext.new()
        # attach() reports neither a busy port nor a refused one: it returns 0.
        identifier = server.attach(context)
        if identifier == 0:
            raise SinkError(_why_not_bound(address, port), permanent=True)
        self._attached = context.find_source_by_id(identifier)
        self.port = int(server.get_bound_port())
        self._loop: Any = glib.MainLoop.new(context, False)
        sweeping = glib.timeout_source_new(SWEEP_MS)
        sweeping.set_callback(self._sweep)
        sweeping.attach(context)
        self._sweeping = sweeping
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="rtsp", daemon=True)
        self._thread.start()

    def serve(self, factory: Any) -> None:
        """To those who come from now on."""
        server = self._server
        if server is not None:
            server.get_mount_points().add_factory(self._path, factory)

    def disconnect_all(self) -> None:
        """Ends every connection; the server goes on."""
        self._viewers.disconnect_all()

    def close(self) -> None:
        """Within CLOSE_DEADLINE_S. May be called twice."""
        loop = self._loop
        if loop is None:
            return
        self._loop = None
        self._attached.destroy()
        self._sweeping.destroy()
        self._viewers.disconnect_all()
        deadline_s = time.monotonic() + DISCONNECT_S
        while self._viewers.connected and time.monotonic() < deadline_s:
            time.sleep(0.01)
        _, server_module = gstreamer.load("GstRtspServer")
        self._server.client_filter(lambda _server, _client: server_module.RTSPFilterResult.REMOVE)
        # By way of the loop itself: a quit before it runs would be lost.
        last = self._glib.idle_source_new()
        last.set_callback(lambda *_: loop.quit())
        last.attach(loop.get_context())
        self._thread.join(CLOSE_DEADLINE_S)
        if self._thread.is_alive():
            log.warning("the RTSP server did not end within %g s; leaving it", CLOSE_DEADLINE_S)
        # The port is free once nothing refers to the server any more.
        self._server = self._attached = self._sweeping = None

    def _sweep(self, *_: Any) -> bool:
        self._viewers.sweep()
        server = self._server
        if server is not None:
            server.get_session_pool().cleanup()
        self.on_sweep()
        return True


def _serve(loop: Any) -> None:
    context = loop.get_context()
    context.push_thread_default()
    try:
        loop.run()
    finally:
        context.pop_thread_default()


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
