"""Who is connected to an RTSP server: admits, counts, and turns out who is silent, stalled or one too many."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from edge_seg import gstreamer

log = logging.getLogger(__name__)

SETUP_NS = 10_000_000_000
"""From connecting to playing; who is silent, or sends half a request, is gone by then."""
PAUSE_NS = 60_000_000_000
"""A viewer who pauses may come back so long."""
STALL_NS = 5_000_000_000
"""A viewer over TCP who has read nothing for so long is disconnected; until then what waits for him takes up to
5 s of the bit rate in memory."""
SPARE_CONNECTIONS = 16
"""More than there may be viewers: who asks for a description, or finds that all places are taken."""
INPUT_BYTES = 8 * 1024
"""Of a client's requests may wait; the kernel doubles it."""
LOG_INTERVAL_NS = 60_000_000_000

_BYTES_ACKED = struct.Struct("@Q")
_BYTES_ACKED_AT = 120
"""Of tcpi_bytes_acked in struct tcp_info (linux/tcp.h), since Linux 4.1."""
_SIOCOUTQ = 0x5411


@dataclass(eq=False)
class _Connection:
    client: Any
    address: str
    since_ns: int
    """When it came, or stopped playing."""
    has_played: bool = False
    is_admitted: bool = False
    """It has a place, from its SETUP on."""
    is_playing: bool = False
    acked: int = -1
    acked_ns: int = 0
    sessions: list[Any] = field(default_factory=list)


class Viewers:
    """The connections of one server. Called by GstRtspServer's threads, and by the sink's."""

    def __init__(
        self,
        max_viewers: int,
        max_per_address: int,
        on_play: Callable[[], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`on_play` is called when a viewer starts; `max_per_address` 0 is no limit."""
        self.max_viewers = max_viewers
        self.max_per_address = max_per_address
        self._on_play = on_play
        self._clock = clock
        self._lock = threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._next_log_ns = 0

    @property
    def playing(self) -> int:
        """How many watch."""
        with self._lock:
            return sum(one.is_playing for one in self._connections.values())

    @property
    def admitted(self) -> int:
        """How many watch or are about to."""
        with self._lock:
            return sum(one.is_admitted for one in self._connections.values())

    @property
    def connected(self) -> int:
        with self._lock:
            return len(self._connections)

    def came(self, client: Any) -> None:
        """Somebody connected."""
        address = client.get_connection().get_ip() or "?"
        _limit_input(client)
        key = hash(client)  # the object's address: the wrapper may be another each time
        with self._lock:
            is_full = len(self._connections) >= self.max_viewers + SPARE_CONNECTIONS
            self._connections[key] = _Connection(client, address, self._clock())
        client.connect("closed", lambda _client: self._left(key))
        client.connect("new-session", lambda _client, session: self._began(key, session))
        client.connect("pre-setup-request", lambda _client, _context: self._admit(key))
        client.connect("play-request", lambda _client, _context: self._played(key))
        client.connect("pause-request", lambda _client, _context: self._stopped(key))
        client.connect("teardown-request", lambda _client, _context: self._stopped(key, gone=True))
        if is_full:
            self._refused(address, "so many are connected that nobody else can be")
            disconnect(client)

    def sweep(self) -> None:
        """Disconnects who is silent or stalled. To be called every second or so."""
        now_ns, overdue = self._clock(), []
        with self._lock:
            for one in self._connections.values():
                if not one.is_playing:
                    allowed_ns = PAUSE_NS if one.has_played else SETUP_NS
                    if now_ns - one.since_ns > allowed_ns:
                        overdue.append(one.client)
                        log.debug("disconnecting %s: silent", one.address)
                elif self._is_stalled(one, now_ns):
                    overdue.append(one.client)
                    log.info("disconnecting a viewer who stopped reading (%s)", one.address)
        for client in overdue:
            disconnect(client)

    def disconnect_all(self) -> None:
        with self._lock:
            clients = [one.client for one in self._connections.values()]
        for client in clients:
            disconnect(client)

    def _admit(self, key: int) -> Any:
        """The answer to a SETUP."""
        status = gstreamer.load("GstRtsp")[1].RTSPStatusCode
        with self._lock:
            one = self._connections.get(key)
            if one is None or one.is_admitted:
                return status.OK
            admitted = [other for other in self._connections.values() if other.is_admitted]
            if len(admitted) >= self.max_viewers:
                why = f"{len(admitted)} watch already (outputs.max_viewers)"
            elif 0 < self.max_per_address <= sum(other.address == one.address for other in admitted):
                why = f"{self.max_per_address} watch from there (outputs.max_sessions_per_address)"
            else:
                one.is_admitted = True
                return status.OK
        self._refused(one.address, why)
        return status.SERVICE_UNAVAILABLE

    def _played(self, key: int) -> None:
        with self._lock:
            one = self._connections.get(key)
            if one is None:
                return
            one.is_playing = one.has_played = True
            one.acked, one.acked_ns = -1, self._clock()
        log.debug("%s plays", one.address)
        self._on_play()

    def _stopped(self, key: int, gone: bool = False) -> None:
        with self._lock:
            one = self._connections.get(key)
            if one is not None:
                one.is_playing, one.since_ns = False, self._clock()
                one.is_admitted = one.is_admitted and not gone

    def _began(self, key: int, session: Any) -> None:
        with self._lock:
            one = self._connections.get(key)
            if one is not None:
                one.sessions.append(session)

    def _left(self, key: int) -> None:
        with self._lock:
            one = self._connections.pop(key, None)
        if one is not None:
            # Else the sessions of those who leave without a word are kept, and counted, for a minute.
            for session in one.sessions:
                one.client.get_session_pool().remove(session)

    def _refused(self, address: str, why: str) -> None:
        now_ns = self._clock()
        if now_ns >= self._next_log_ns:
            self._next_log_ns = now_ns + LOG_INTERVAL_NS
            log.warning("refused %s: %s", address, why)

    def _is_stalled(self, one: _Connection, now_ns: int) -> bool:
        """Whether something waits to be sent to him and he has not acknowledged a byte for STALL_NS."""
        acked, waiting = _progress(_socket_of(one.client))
        if acked != one.acked or waiting == 0:
            one.acked, one.acked_ns = acked, now_ns
        return now_ns - one.acked_ns > STALL_NS


def disconnect(client: Any) -> None:
    """Ends the connection, from any thread: its own thread of GstRtspServer's sees the end and cleans up.

    `client.close()` from another thread takes the stream away from under a read, which then never ends.
    """
    _, glib = gstreamer.load("GLib")
    gsocket = _socket_of(client)
    if gsocket is not None:
        with contextlib.suppress(glib.Error):  # it has ended by itself
            gsocket.shutdown(True, True)


def _limit_input(client: Any) -> None:
    """Lets little of what a client sends wait: GstRtspServer reads byte by byte, a megabyte in seconds."""
    gsocket = _socket_of(client)
    if gsocket is not None:
        with _Raw(gsocket) as raw, contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, INPUT_BYTES)


def _socket_of(client: Any) -> Any:
    """The Gio.Socket of the connection; None when it is closed."""
    connection = client.get_connection()
    gsocket = connection.get_write_socket() if connection is not None else None
    return None if gsocket is None or gsocket.is_closed() else gsocket


def _progress(gsocket: Any) -> tuple[int, int]:
    """(bytes that the other side has acknowledged so far, bytes that wait to be), both 0 when it is closed."""
    if gsocket is None:
        return 0, 0
    try:
        with _Raw(gsocket) as raw:
            info = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            (waiting,) = struct.unpack("@i", fcntl.ioctl(raw.fileno(), _SIOCOUTQ, b"\0" * 4))
    except OSError:
        return 0, 0
    if len(info) < _BYTES_ACKED_AT + _BYTES_ACKED.size:
        return 0, 0
    (acked,) = _BYTES_ACKED.unpack_from(info, _BYTES_ACKED_AT)
    return acked, waiting


class _Raw:
    """Python's view of a Gio.Socket while it is entered. The descriptor stays GLib's."""

    def __init__(self, gsocket: Any) -> None:
        self._gsocket = gsocket  # stays referred to, so that the descriptor is nobody else's meanwhile

    def __enter__(self) -> socket.socket:
        self._socket = socket.socket(fileno=self._gsocket.get_fd())
        return self._socket

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.detach()
