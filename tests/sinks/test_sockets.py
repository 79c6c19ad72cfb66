from __future__ import annotations

import socket

import pytest

from edge_seg.sinks import sockets
from edge_seg.sinks.sockets import Reading, Received


def test_only_connections_to_the_peers_are_told_and_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as wanted, socket.create_server(("127.0.0.1", 0)) as other:
        peer = wanted.getsockname()
        with socket.create_connection(peer) as ours, socket.create_connection(other.getsockname()) as theirs:
            assert sockets.tune({peer}, 3000, 100_000).keys() == {ours.getsockname()}
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 200_000  # the kernel doubles it
            assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
            ours.sendall(b"still open")
        assert sockets.tune({peer}, 3000, 100_000) == {}


def test_what_a_peer_does_not_read_takes_room_from_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = listener.getsockname()
        with socket.create_connection(peer) as ours, listener.accept()[0] as theirs:
            address = ours.getsockname()
            before = sockets.tune({peer}, 3000, 100_000)[address]
            if before is None:
                pytest.skip("this kernel does not tell")
            rooms = [before.room]
            for sent in range(10_000, 200_000, 10_000):  # at first a system makes more room
                ours.sendall(bytes(10_000))
                assert theirs.recv(sent, socket.MSG_WAITALL | socket.MSG_PEEK)
                now = sockets.tune({peer}, 3000, 100_000)[address]
                assert now is not None
                assert 0 <= now.confirmed - before.confirmed <= sent
                rooms.append(now.room)
                if now.room < max(rooms) - 30_000:
                    return
            pytest.fail(f"the room does not shrink: {rooms}")


def silent_after_s(looks: list[tuple[int, int]]) -> float | None:
    """`looks`: bytes (confirmed, room for) every 300 ms. When a peer counts as silent."""
    reading = Reading(3000)
    for index, look in enumerate(looks):
        if reading.is_silent(Received(*look), index * 300_000_000):
            return index * 0.3
    return None


def test_one_that_reads_nothing_is_silent_long_before_its_room_is_used_up() -> None:
    steady = [(12_000 * i, 170_000) for i in range(20)]
    frozen = [(12_000 * (20 + i), 170_000 - 9_000 * i) for i in range(19)]
    found = silent_after_s(steady + frozen)
    assert found is not None
    assert found - 20 * 0.3 <= 3.3


def test_one_whose_room_is_used_up_is_silent() -> None:
    assert silent_after_s([(50_000, 0)] * 20) == pytest.approx(3.0)


def test_one_that_reads_is_not() -> None:
    assert silent_after_s([(12_000 * i, 170_000) for i in range(100)]) is None
    # Late by as much as it likes, as long as it reads more than half.
    assert silent_after_s([(12_000 * i, 500_000 - 4_000 * i) for i in range(100)]) is None
    # Its room breathes.
    assert silent_after_s([(12_000 * i, 170_000 - 20_000 * (i % 8)) for i in range(100)]) is None


def test_nothing_is_concluded_from_nothing_sent() -> None:
    quiet = [(1000, 170_000)] * 100
    assert silent_after_s(quiet) is None
    # A key frame after a long pause, which it has not read at the moment of the look.
    assert silent_after_s([*quiet, (41_000, 130_000), (41_000, 170_000)]) is None
