"""A viewer who notes when each picture was captured and when it was there, through one client or another."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg import gstreamer
from edge_seg.sources import timecode
from tests.e2e.daemon import watch

U8 = NDArray[np.uint8]
Pictures = Generator[U8, None, None]
"""The luma of each decoded picture, (height, width); valid until the next one."""


def low_delay(url: str) -> Pictures:
    """FFmpeg's libraries as `ffplay -fflags nobuffer -flags low_delay -rtsp_transport tcp` uses them."""
    yield from _decoded(watch(url))


def ffmpeg_defaults(url: str) -> Pictures:
    """The same as most programs use them: TCP, and nothing else said."""
    yield from _decoded(av.open(url, options={"rtsp_transport": "tcp"}, timeout=30))


def _decoded(container: Any) -> Pictures:
    try:
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            yield np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)[:, : frame.width]
    finally:
        container.close()


def opencv(url: str) -> Pictures:
    """cv2.VideoCapture over TCP."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp"
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    try:
        while (found := capture.read())[0]:
            yield np.asarray(cv2.cvtColor(found[1], cv2.COLOR_BGR2GRAY), np.uint8)
    finally:
        capture.release()


def gstreamer_client(latency_ms: int) -> Callable[[str], Pictures]:
    """rtspsrc with that jitter buffer, shown by the clock."""

    def pictures(url: str) -> Pictures:
        gst, _ = gstreamer.load("GstApp")
        pipeline = gst.parse_launch(
            f"rtspsrc location={url} protocols=tcp latency={latency_ms} ! rtph264depay ! avdec_h264 max-threads=1 ! "
            "video/x-raw,format=I420 ! appsink name=sink sync=true max-buffers=4"
        )
        sink = pipeline.get_by_name("sink")
        pipeline.set_state(gst.State.PLAYING)
        try:
            while (sample := sink.try_pull_sample(10 * gst.SECOND)) is not None:
                shape = sample.get_caps().get_structure(0)
                width, height = shape.get_value("width"), shape.get_value("height")
                with sample.get_buffer().map(gst.MapFlags.READ) as mapped:
                    yield np.frombuffer(mapped.data, np.uint8)[: width * height].reshape(height, width)
        finally:
            pipeline.set_state(gst.State.NULL)

    return pictures


CLIENTS: dict[str, Callable[[str], Pictures]] = {
    "FFmpeg, low delay": low_delay,
    "FFmpeg, defaults": ffmpeg_defaults,
    "OpenCV": opencv,
    "GStreamer, latency=0": gstreamer_client(0),
    "GStreamer, latency=100": gstreamer_client(100),
    "GStreamer, latency=2000 (its default)": gstreamer_client(2000),
}


class FirstViewer:
    """Watches in a thread, from its construction until `close`."""

    KEPT_EVERY = 5
    """Codes are read afterwards, of one picture in so many: who computes while it watches measures itself."""

    def __init__(self, url: str, client: Callable[[str], Pictures] = low_delay) -> None:
        self.arrivals_ns: list[int] = []
        self._kept: list[tuple[int, U8]] = []
        self._pictures = client(url)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for luma in self._pictures:
            now_ns = time.monotonic_ns()
            self.arrivals_ns.append(now_ns)
            if len(self.arrivals_ns) % self.KEPT_EVERY == 0:
                self._kept.append((now_ns, luma.copy()))
            if self._stop.is_set():
                break
        self._pictures.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def figures(self, skipped: int = 60) -> dict[str, Any]:
        """fps, the longest gap between two pictures, latency: all in ms but the rate."""
        latencies = []
        for arrived_ns, luma in self._kept[skipped // self.KEPT_EVERY :]:
            code = timecode.read_code(luma)
            if code is not None:
                latencies.append((arrived_ns - code.captured_ns) / 1e6)
        arrivals = np.asarray(self.arrivals_ns[skipped:])
        gaps_ms = np.diff(arrivals) / 1e6
        return {
            "fps": round((len(arrivals) - 1) / ((arrivals[-1] - arrivals[0]) / 1e9), 2),
            "longest_gap_ms": round(float(gaps_ms.max()), 1),
            "latency_p50_ms": round(float(np.percentile(latencies, 50)), 1),
            "latency_p99_ms": round(float(np.percentile(latencies, 99)), 1),
            "samples": len(latencies),
        }
