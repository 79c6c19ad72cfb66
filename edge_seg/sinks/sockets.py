"""Reaches the TCP connections that GStreamer has made, to set on them what its elements do not offer."""

from __future__ import annotations

import os
import socket

Address = tuple[str, int]


def tune(peers: set[Address], silence_ms: int, send_buffer: int) -> set[Address]:
    """Sets, on every TCP connection of this process to one of the peers (address, port): it breaks when nothing is
    confirmed for `silence_ms`, and at most about `send_buffer` bytes wait in the system. Returns the connections, by
    their own addresses: one that is missing in a later answer is no more.

    Without that, Linux goes on sending into a dead network for 15 minutes (tcp(7), tcp_retries2), and takes megabytes
    before it makes anybody wait.
    """
    found = set()
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
                found.add(connection.getsockname()[:2])
            except OSError:
                continue  # not connected
    return found
