"""Reaches the TCP connections that GStreamer has made: sets what its elements do not offer, and sees who reads."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

Address = tuple[str, int]

_CONFIRMED, _ROOM = 120, 228
"""Where tcpi_bytes_acked (64 bits) and tcpi_snd_wnd (32 bits, Linux 5.4) are in struct tcp_info of linux/tcp.h."""


@dataclass(frozen=True)
class Received:
    """What the other end of a connection says of what it was sent, in bytes."""

    confirmed: int
    """Its system has so many of them, read or not."""
    room: int
    """For so many more it has room."""


class Reading:
    """Tells whether a peer reads. One that is frozen goes on confirming until its system has no more room, which can
    be many seconds of a stream; but its room shrinks by what it is sent, where that of one that reads does not."""

    EVIDENCE = 16384
    """Bytes. Fewer tell nothing: systems count their room roughly."""

    def __init__(self, silence_ms: int) -> None:
        self._silence_ns = silence_ms * 1_000_000
        self._since: tuple[int, Received] | None = None

    def is_silent(self, now: Received, now_ns: int) -> bool:
        """Whether it has read nothing, or next to nothing, for so long. To be called now and then."""
        if self._since is None:
            self._since = now_ns, now
        since_ns, before = self._since
        sent, shrunk = now.confirmed - before.confirmed, before.room - now.room
        has_read = shrunk <= 0 and now.room > 0
        if has_read or (sent >= self.EVIDENCE and 2 * shrunk < sent):
            self._since = now_ns, now
            return False
        return now_ns - since_ns >= self._silence_ns and (sent >= self.EVIDENCE or now.room == 0)


def tune(peers: set[Address], silence_ms: int, send_buffer: int) -> dict[Address, Received | None]:
    """Sets, on every TCP connection of this process to one of the peers (address, port): it breaks when nothing is
    confirmed for `silence_ms`, and at most about `send_buffer` bytes wait in the system. Returns the connections, by
    their own addresses, with what became of what was sent, where the kernel tells: one that is missing in a later
    answer is no more.

    Without that, Linux goes on sending into a dead network for 15 minutes (tcp(7), tcp_retries2), and takes megabytes
    before it makes anybody wait.
    """
    found: dict[Address, Received | None] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            copy = os.dup(int(name))
        except OSError:
            continue  # closed meanwhile
        try:
            connection = socket.socket(fileno=copy)
        except OSError:  # what has the number now is no socket
            os.close(copy)
            continue
        with connection:
            try:
                if connection.type != socket.SOCK_STREAM or connection.getpeername()[:2] not in peers:
                    continue
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(send_buffer, 65536))
                found[connection.getsockname()[:2]] = _received(connection)
            except OSError:
                continue  # not connected
    return found


def _received(connection: socket.socket) -> Received | None:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROOM + 4)
    if len(info) < _ROOM + 4:
        return None
    (confirmed,), (room,) = struct.unpack_from("Q", info, _CONFIRMED), struct.unpack_from("I", info, _ROOM)
    return Received(confirmed, room)
