"""The RTSP sink against real clients and real ports."""

import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.rtsp import RtspSettings, RtspSink
from edge_seg.types import I420, Matrix
from tests.e2e.daemon import watch

OUTPUT = OutputFormat(320, 240, Fraction(30), Matrix.BT709)


class Producer:
    """Pushes pictures at 30 a second, each of one luma, and measures how long a push takes."""

    def __init__(self, sink: RtspSink) -> None:
        self.picture = I420.filled(OUTPUT.width, OUTPUT.height, (100, 90, 170))
        self.pushes_s: list[float] = []
        self._sink = sink
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Producer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1 / 30):
            started = time.monotonic()
            self._sink.push(self.picture, time.monotonic_ns())
            self.pushes_s.append(time.monotonic() - started)


@pytest.fixture
def sink() -> Iterator[RtspSink]:
    sink = RtspSink(RtspSettings(port=0))
    sink.open(OUTPUT)
    yield sink
    sink.close()


def test_colours_matrix_and_range_arrive_as_they_were_sent(sink: RtspSink) -> None:
    with Producer(sink):
        viewer = watch(sink.url)
        frames = viewer.decode(video=0)
        for _ in range(10):
            frame = next(frames)
        viewer.close()
    y, u, v = (np.frombuffer(plane, np.uint8) for plane in frame.planes)
    assert abs(int(np.median(y)) - 100) <= 2
    assert abs(int(np.median(u)) - 90) <= 2
    assert abs(int(np.median(v)) - 170) <= 2
    assert (frame.colorspace, frame.color_range) == (1, 1)  # FFmpeg's BT.709 and limited


def test_nothing_is_encoded_while_nobody_watches(sink: RtspSink) -> None:
    with Producer(sink):
        assert not sink.wants_pictures
        viewer = watch(sink.url)
        next(viewer.decode(video=0))
        assert sink.wants_pictures
        viewer.close()
        for _ in range(200):
            if not sink.wants_pictures:
                break
            time.sleep(0.05)
        assert not sink.wants_pictures


def test_a_push_never_blocks_even_when_frames_come_much_faster_than_they_are_encoded(sink: RtspSink) -> None:
    with Producer(sink) as producer:
        viewer = watch(sink.url)
        next(viewer.decode(video=0))
        started = time.monotonic()
        for _ in range(500):
            sink.push(producer.picture, time.monotonic_ns())
        assert time.monotonic() - started < 10
        viewer.close()


def test_viewers_stay_when_the_picture_changes_its_size(sink: RtspSink) -> None:
    with Producer(sink) as producer:
        viewer = watch(sink.url)
        frames = viewer.decode(video=0)
        next(frames)
        larger = OutputFormat(640, 360, Fraction(30), Matrix.BT709)
        sink.reformat(larger)
        producer.picture = I420.filled(larger.width, larger.height, (100, 90, 170))
        sizes = {(frame.width, frame.height) for frame, _ in zip(frames, range(60), strict=False)}
        assert (640, 360) in sizes
        viewer.close()


def test_a_busy_port_and_a_foreign_address_are_refused_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SinkError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            RtspSink(RtspSettings(port=port)).open(OUTPUT)
    with pytest.raises(SinkError, match="no interface has that address"):
        RtspSink(RtspSettings(address="192.0.2.1", port=0)).open(OUTPUT)


def test_close_frees_the_port_and_may_be_repeated() -> None:
    sink = RtspSink(RtspSettings(port=0))
    sink.open(OUTPUT)
    port = int(sink.url.rsplit(":", 1)[1].split("/")[0])
    sink.close()
    sink.close()
    again = RtspSink(RtspSettings(port=port))
    again.open(OUTPUT)
    again.close()
