from __future__ import annotations

import socket

from edge_seg.sinks import sockets


def test_only_connections_to_the_peers_are_told_and_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as wanted, socket.create_server(("127.0.0.1", 0)) as other:
        peer = wanted.getsockname()
        with socket.create_connection(peer) as ours, socket.create_connection(other.getsockname()) as theirs:
            assert sockets.tune({peer}, 3000, 100_000) == {ours.getsockname()}
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 200_000  # the kernel doubles it
            assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
            ours.sendall(b"still open")
        assert sockets.tune({peer}, 3000, 100_000) == set()
