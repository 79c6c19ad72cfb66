"""What viewers share: one pipeline from our pictures to RTP packets, made when the first comes, gone soon after the
last.

GstRtspServer ends a shared pipeline with its last viewer, and refuses who comes in that moment: he is given the
one that is ending. So each is held a little longer, and ends only after all who come have been given another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from edge_seg import gstreamer
from edge_seg.encoders import Encoder, EncoderSettings
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.rtsp.auth import permit
from edge_seg.sinks.rtsp.settings import MulticastSettings
from edge_seg.types import I420

log = logging.getLogger(__name__)


class Media:
    """The factory of that pipeline, and the pipeline while somebody watches. Pictures are pushed by one thread;
    GstRtspServer's threads make and end the pipeline."""

    def __init__(self) -> None:
        self._gst, self._module, _ = gstreamer.load("GstRtspServer", "GstApp")
        self._lock = threading.Lock()
        self._running: tuple[_Pipeline, ...] = ()
        """One; two for a while when a viewer comes when the others have just left."""
        self._output: OutputFormat | None = None
        self.failure: tuple[bool, str] | None = None
        """Whether the encoder failed (or something else), and why; None while all is well."""
        self._launch = ""
        self._transports: tuple[str, ...] = ()
        self._multicast: MulticastSettings | None = None
        self.on_renewed: Callable[[Any], None] = lambda factory: None
        """Called with the factory that those who come from now on are to get, from any thread."""
        self.factory = self._make_factory()

    @property
    def is_watched(self) -> bool:
        return bool(self._running)

    def set_transports(self, transports: tuple[str, ...], multicast: MulticastSettings | None) -> None:
        """For viewers who come from now on."""
        self._transports, self._multicast = transports, multicast
        self._apply_transports(self.factory)

    def _make_factory(self) -> Any:
        factory = self._module.RTSPMediaFactory()
        factory.set_shared(True)
        factory.set_latency(0)
        factory.set_suspend_mode(self._module.RTSPSuspendMode.NONE)
        permit(factory)
        factory.connect("media-configure", self._on_media)
        if self._launch:
            factory.set_launch(self._launch)
            self._apply_transports(factory)
        return factory

    def _apply_transports(self, factory: Any) -> None:
        flags = gstreamer.load("GstRtsp")[1].RTSPLowerTrans
        kinds = {"udp": flags.UDP, "tcp": flags.TCP}
        protocols = flags(0)
        for transport in self._transports:
            protocols |= kinds[transport]
        multicast = self._multicast
        if multicast is not None:
            protocols |= flags.UDP_MCAST
            pool = self._module.RTSPAddressPool()
            pool.add_range(
                multicast.address, multicast.address, multicast.port, multicast.port + 1, multicast.ttl
            )
            factory.set_address_pool(pool)
            factory.set_max_mcast_ttl(multicast.ttl)
        factory.set_protocols(protocols)

    def configure(self, encoder: Encoder, settings: EncoderSettings, output: OutputFormat) -> None:
        """How the pipeline is made from now on. One that runs goes on, and is told the new format."""
        # config-interval belongs on the parser: on the payloader it breaks multi-slice pictures for FFmpeg.
        self._launch = (
            "( appsrc name=source is-live=true format=time block=false max-buffers=2 max-bytes=0 max-time=0 "
            f"leaky-type=downstream caps={_caps(output)} ! {encoder.launch(settings)} ! "
            f"{encoder.parser} config-interval=-1 ! "
            f"{encoder.payloader} name=pay0 pt=96 aggregate-mode=zero-latency )"
        )
        self.factory.set_launch(self._launch)
        self._output = output
        for pipeline in self._running:
            pipeline.appsrc.set_caps(self._gst.Caps.from_string(_caps(output)))

    def push(self, picture: I420, captured_ns: int) -> None:
        for pipeline in self._running:
            pipeline.push(picture, captured_ns)

    def request_key_frame(self) -> None:
        """The next picture is a key frame."""
        _, video = gstreamer.load("GstVideo")
        for encoder in self.encoder_elements():
            event = video.video_event_new_upstream_force_key_unit(self._gst.CLOCK_TIME_NONE, True, 0)
            encoder.get_static_pad("src").send_event(event)

    def encoder_elements(self) -> list[Any]:
        """The running encoders, none while nobody watches."""
        return [pipeline.media.get_element().get_by_name("encoder") for pipeline in self._running]

    def sweep(self, is_idle: bool) -> None:
        """Ends what nobody watches. To be called every second or so; `is_idle`: there is no viewer."""
        with self._lock:
            ending = [one for one in self._running if one.is_retired and one.is_held]
            for one in ending:
                one.is_held = False
            retiring = [one for one in self._running if is_idle and not one.is_retired]
            for one in retiring:
                one.is_retired = True
            if retiring:
                self.factory = self._make_factory()
        if retiring:
            self.on_renewed(self.factory)
        for one in ending:
            one.media.unprepare()

    def forget(self) -> None:
        """What runs is of no use any more: no pictures for it."""
        with self._lock:
            ending = [one for one in self._running if one.is_held]
            self._running = ()
        for one in ending:
            one.media.unprepare()

    def _on_media(self, _factory: Any, media: Any) -> None:
        element = media.get_element()
        appsrc = element.get_by_name("source")
        assert self._output is not None
        appsrc.set_caps(self._gst.Caps.from_string(_caps(self._output)))
        media.connect("prepared", self._on_prepared)
        media.connect("unprepared", self._on_unprepared)
        bus = element.get_parent().get_bus()
        bus.enable_sync_message_emission()
        bus.connect("sync-message::error", self._failed_in(element))
        with self._lock:
            self._running = (*self._running, _Pipeline(media, appsrc))
        log.info("a viewer came: encoding")

    def _on_prepared(self, media: Any) -> None:
        with self._lock:
            found = [one for one in self._running if one.media is media and not one.is_held]
            for one in found:
                one.is_held = True
        if found:
            media.prepare(None)  # one more than its viewers

    def _on_unprepared(self, media: Any) -> None:
        with self._lock:
            before = self._running
            self._running = tuple(one for one in before if one.media is not media)
            is_last = bool(before) and not self._running
        if is_last:
            log.info("the last viewer left: encoding no more")

    def _failed_in(self, element: Any) -> Callable[[Any, Any], None]:
        """Notes the first error of the pipeline, whose encoding part is everything between source and parser."""
        before = {"source"}

        def note(_bus: Any, message: Any) -> None:
            if self.failure is None and element is not None:
                error, _ = message.parse_error()
                source = message.src
                name = source.get_name() if source is not None else ""
                is_encoder = name not in before and not name.startswith(("pay", "h264parse", "h265parse"))
                self.failure = is_encoder and message.src.has_as_ancestor(element), str(error.message)

        return note


class _Pipeline:
    """One pipeline that runs."""

    def __init__(self, media: Any, appsrc: Any) -> None:
        self.media = media
        self.appsrc = appsrc
        self.is_held = False
        """Prepared once more than by its viewers, so that it does not end with them."""
        self.is_retired = False
        """Those who come now are given another."""
        self._last_pts_ns = -1

    def push(self, picture: I420, captured_ns: int) -> None:
        # The pipeline's clock is the monotonic one: the capture time itself is the time stamp, so that
        # whatever jitter processing adds stays out of the viewers' playback.
        base_ns = self.appsrc.get_base_time()
        pts_ns = captured_ns - base_ns
        if base_ns == 0 or pts_ns < 0:
            return  # not playing yet
        # GStreamer's server aborts the process when time goes backwards for a viewer with a backlog, and a frame that
        # was captured before the slate was drawn can come after it.
        pts_ns = max(pts_ns, self._last_pts_ns + 1)
        self._last_pts_ns = pts_ns
        self.appsrc.push_buffer(gstreamer.to_buffer(picture, pts_ns))


def _caps(output: OutputFormat) -> str:
    return gstreamer.raw_caps(output.width, output.height, output.fps, output.matrix)
