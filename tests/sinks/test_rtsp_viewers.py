"""Viewers who are silent, stall, send rubbish or are too many: they go, the others see every picture."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.rtsp import RtspSettings, RtspSink, server, viewers
from edge_seg.types import Matrix
from tests.rtsp_client import RtspClient
from tests.sinks.producer import OUTPUT, Producer, wait_until


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[RtspSink]:
    """Three may watch, two from one address; who is silent or stalled for a second has to go."""
    monkeypatch.setattr(viewers, "SETUP_NS", 1_000_000_000)
    monkeypatch.setattr(viewers, "STALL_NS", 1_000_000_000)
    monkeypatch.setattr(server, "SWEEP_MS", 100)
    sink = RtspSink(RtspSettings(port=0, max_viewers=3, bitrate_kbps=6000))
    sink.open(OUTPUT)
    yield sink
    sink.close()


def address(sink: RtspSink) -> tuple[str, int]:
    return "127.0.0.1", int(sink.url.rsplit(":", 1)[1].split("/")[0])


def test_so_many_may_watch_and_the_next_one_is_told_that_it_is_full(
    sink: RtspSink, caplog: pytest.LogCaptureFixture
) -> None:
    with Producer(sink):
        inside = [RtspClient(sink.url) for _ in range(3)]
        for viewer in inside:
            viewer.play()
        wait_until(lambda: sink.viewers == 3)
        for _ in range(2):
            with RtspClient(sink.url) as late:
                late.ask("DESCRIBE")
                assert late.setup() == 503
        inside[0].ask("TEARDOWN")
        with RtspClient(sink.url) as late:
            late.play()
        for viewer in inside:
            viewer.close()
    assert caplog.text.count("refused 127.0.0.1: 3 watch already (outputs.max_viewers)") == 1


def test_an_address_may_have_a_limit_of_its_own() -> None:
    sink = RtspSink(RtspSettings(port=0, max_sessions_per_address=1))
    sink.open(OUTPUT)
    try:
        with Producer(sink), RtspClient(sink.url) as one, RtspClient(sink.url) as two:
            one.play()
            two.ask("DESCRIBE")
            assert two.setup() == 503
    finally:
        sink.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"DESCRIBE rtsp://127.0.0.1/li", b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: "],
    ids=["silent", "half a line", "half a header"],
)
def test_who_does_not_come_to_the_point_is_disconnected(sink: RtspSink, sent: bytes) -> None:
    with RtspClient(sink.url) as client:
        client.socket.sendall(sent)
        assert client.is_closed_within(6)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 5000,
        b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"OPTIONS * RTSP/1.0\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
        b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 100_000,
        b"DESCRIBE rtsp://127.0.0.1/../../etc/passwd RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"DESCRIBE rtsp://127.0.0.1/%n%s%x RTSP/9.9\r\nCSeq: -1\r\n\r\n",
        b"$\x00\xff\xff" + b"z" * 70_000,
    ],
    ids=["TLS", "HTTP", "zeros", "long header", "many headers", "large body", "path", "version", "data"],
)
def test_rubbish_harms_nobody(sink: RtspSink, sent: bytes) -> None:
    with Producer(sink), RtspClient(sink.url) as viewer:
        viewer.play()
        with socket.create_connection(address(sink), timeout=5) as scanner:
            try:
                scanner.sendall(sent)
                scanner.recv(1000)
            except OSError:  # cut off while it sends
                pass
        seen = time.monotonic()
        for _ in range(20):
            viewer.packet()
        assert time.monotonic() - seen < 5


def test_a_viewer_who_stops_reading_is_disconnected_and_the_others_see_every_picture(sink: RtspSink) -> None:
    large = OutputFormat(640, 360, Fraction(30), Matrix.BT709)
    sink.reformat(large)
    with Producer(sink, large, noise=True):
        stalled = RtspClient(sink.url, receive_buffer=4096)
        stalled.play()
        with RtspClient(sink.url) as reading:
            reading.play()
            stop = threading.Event()
            counted: list[int] = []

            def read() -> None:
                while not stop.is_set():
                    reading.packet()
                    counted.append(1)

            thread = threading.Thread(target=read)
            thread.start()
            wait_until(lambda: sink.viewers == 2)
            wait_until(lambda: sink.viewers == 1)
            before = len(counted)
            wait_until(lambda: len(counted) >= before + 100)
            stop.set()
            thread.join()
            assert sink.viewers == 1
        stalled.close()


def test_viewers_who_come_and_go_leave_nothing_behind(sink: RtspSink) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(list(Path("/proc/self/task").iterdir()))

    def come_and_go(abruptly: bool) -> None:
        with RtspClient(sink.url) as viewer:
            viewer.play()
            viewer.packet()
            if not abruptly:
                viewer.ask("TEARDOWN")
        wait_until(lambda: not sink.wants_pictures)

    places = 3 + viewers.SPARE_CONNECTIONS
    with Producer(sink):
        for _ in range(places + 5):
            with RtspClient(sink.url) as viewer:
                viewer.play()  # and without a word away
        come_and_go(True)
        come_and_go(False)
        before = held()
        for number in range(10):
            come_and_go(number % 2 == 0)
        wait_until(lambda: held() <= before)
