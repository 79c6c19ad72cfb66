"""Network cameras, and any other RTSP server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edge_seg import gstreamer, secret
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.sources.base import RtspSourceSettings
from edge_seg.sources.gst import LIVE_SINK, GstSource

# drop-on-latency: after a stall of the network the newest pictures count, not all of them.
PIPELINE = (
    "rtspsrc name=camera drop-on-latency=true teardown-timeout=100000000 ! decodebin name=decoder ! "
    + LIVE_SINK
)
STEP_TIMEOUT_US = 5_000_000
"""For a connection, and for each answer. A lost first packet is sent again after 1, 3, 7 and 15 s: a new try after 5 is
sooner there when the network comes back."""
DECODER_THREADS = 2
"""Of a software decoder. Its own choice is one a core, in which each holds back a frame."""


class RtspSource(GstSource):
    """Plays the first picture stream of an RTSP server, without its sound."""

    def __init__(self, settings: RtspSourceSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(clock)
        self.name = secret.public_url(settings.url)
        self._settings = settings
        self._secret = ""
        self._selected = False

    def _build(self) -> Any:
        gst, rtsp = gstreamer.load("GstRtsp")
        settings = self._settings
        self._secret = secret.read("source", settings.password_file, settings.password_env)
        self._selected = False
        for element, package in (
            ("rtspsrc", "gstreamer1.0-plugins-good"),
            ("avdec_h264", "gstreamer1.0-libav"),
        ):
            if gst.ElementFactory.find(element) is None:
                raise ConfigError(f"{self.name}: {element} is missing; run `sudo apt install {package}`")
        pipeline = gst.parse_launch(PIPELINE)
        camera = pipeline.get_by_name("camera")
        camera.set_property("location", settings.url)
        protocols = rtsp.RTSPLowerTrans.TCP if settings.transport == "tcp" else rtsp.RTSPLowerTrans.UDP
        camera.set_property("protocols", protocols)
        camera.set_property("latency", settings.latency_ms)
        camera.set_property("tcp-timeout", STEP_TIMEOUT_US)
        if settings.user:
            camera.set_property("user-id", settings.user)
            camera.set_property("user-pw", self._secret)
        camera.connect("select-stream", self._select)
        pipeline.get_by_name("decoder").connect("element-added", _tune_decoder)
        return pipeline

    def _select(self, _camera: Any, _number: int, caps: Any) -> bool:
        """Asks the server for the first stream of pictures only: nothing else is sent then."""
        wanted = not self._selected and caps.get_structure(0).get_string("media") == "video"
        self._selected = self._selected or wanted
        return wanted

    def _on_end(self) -> None:
        raise SourceLost(f"{self.name}: the server has ended the stream")

    def _failed(self, error: Any, debug: str) -> Exception:
        text = explain(str(error.message), debug)
        if self._secret:
            text = text.replace(self._secret, "***")
        return SourceLost(f"{self.name}: {text}")


def explain(message: str, debug: str) -> str:
    """One line on what is wrong, from an error of rtspsrc and its details."""
    both = f"{message} {debug}"
    if "Unauthorized" in both or "Not authorized" in both:
        return "refuses this user or password (source.user, source.password_file)"
    if "Not found" in both or "404" in both:
        return "knows no stream under this path"
    last = debug.strip().splitlines()[-1].rpartition("): ")[2].strip() if debug.strip() else ""
    return (
        f"{message.rstrip('.')} ({last.rstrip('.')})" if last and last not in message else message.rstrip(".")
    )


def _tune_decoder(_bin: Any, element: Any) -> None:
    factory = element.get_factory()
    if factory is not None and factory.get_name().startswith("avdec_"):
        element.set_property("max-threads", DECODER_THREADS)
        # Who joins between two key frames would otherwise see, and segment, what is half grey until the next one.
        element.set_property("output-corrupt", False)
