"""What viewers share: one pipeline from our pictures to RTP packets, made when the first comes, gone with the last."""

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
        self._media: Any = None
        self._appsrc: Any = None
        self._output: OutputFormat | None = None
        self._last_pts_ns = -1
        self.failure: tuple[bool, str] | None = None
        """Whether the encoder failed (or something else), and why; None while all is well."""
        self.factory = factory = self._module.RTSPMediaFactory()
        factory.set_shared(True)
        factory.set_latency(0)
        factory.set_suspend_mode(self._module.RTSPSuspendMode.NONE)
        permit(factory)
        factory.connect("media-configure", self._on_media)

    @property
    def is_watched(self) -> bool:
        return self._appsrc is not None

    def set_transports(self, transports: tuple[str, ...], multicast: MulticastSettings | None) -> None:
        """For viewers who come from now on."""
        flags = gstreamer.load("GstRtsp")[1].RTSPLowerTrans
        kinds = {"udp": flags.UDP, "tcp": flags.TCP}
        protocols = flags(0)
        for transport in transports:
            protocols |= kinds[transport]
        if multicast is not None:
            protocols |= flags.UDP_MCAST
            pool = self._module.RTSPAddressPool()
            pool.add_range(
                multicast.address, multicast.address, multicast.port, multicast.port + 1, multicast.ttl
            )
            self.factory.set_address_pool(pool)
            self.factory.set_max_mcast_ttl(multicast.ttl)
        self.factory.set_protocols(protocols)

    def configure(self, encoder: Encoder, settings: EncoderSettings, output: OutputFormat) -> None:
        """How the pipeline is made from now on. One that runs goes on, and is told the new format."""
        # config-interval belongs on the parser: on the payloader it breaks multi-slice pictures for FFmpeg.
        self.factory.set_launch(
            "( appsrc name=source is-live=true format=time block=false max-buffers=2 max-bytes=0 max-time=0 "
            f"leaky-type=downstream caps={_caps(output)} ! {encoder.launch(settings)} ! "
            f"{encoder.parser} config-interval=-1 ! "
            f"{encoder.payloader} name=pay0 pt=96 aggregate-mode=zero-latency )"
        )
        self._output = output
        appsrc = self._appsrc
        if appsrc is not None:
            appsrc.set_caps(self._gst.Caps.from_string(_caps(output)))

    def push(self, picture: I420, captured_ns: int) -> None:
        appsrc = self._appsrc
        if appsrc is None:
            return
        # The pipeline's clock is the monotonic one: the capture time itself is the time stamp, so that
        # whatever jitter processing adds stays out of the viewers' playback.
        base_ns = appsrc.get_base_time()
        pts_ns = captured_ns - base_ns
        if base_ns == 0 or pts_ns < 0:
            return  # not playing yet
        # GStreamer's server aborts the process when time goes backwards for a viewer with a backlog, and a frame that
        # was captured before the slate was drawn can come after it.
        pts_ns = max(pts_ns, self._last_pts_ns + 1)
        self._last_pts_ns = pts_ns
        appsrc.push_buffer(gstreamer.to_buffer(picture, pts_ns))

    def request_key_frame(self) -> None:
        """The next picture is a key frame."""
        encoder = self.encoder_element()
        if encoder is not None:
            _, video = gstreamer.load("GstVideo")
            event = video.video_event_new_upstream_force_key_unit(self._gst.CLOCK_TIME_NONE, True, 0)
            encoder.get_static_pad("src").send_event(event)

    def encoder_element(self) -> Any:
        """The running encoder, None while nobody watches."""
        with self._lock:
            media = self._media
        return None if media is None else media.get_element().get_by_name("encoder")

    def forget(self) -> None:
        """The pipeline that is there is of no use any more: no pictures for it."""
        with self._lock:
            self._media = self._appsrc = None

    def _on_media(self, _factory: Any, media: Any) -> None:
        element = media.get_element()
        appsrc = element.get_by_name("source")
        assert self._output is not None
        appsrc.set_caps(self._gst.Caps.from_string(_caps(self._output)))
        media.connect("unprepared", self._on_unprepared)
        bus = element.get_parent().get_bus()
        bus.enable_sync_message_emission()
        bus.connect("sync-message::error", self._failed_in(element))
        with self._lock:
            self._media, self._appsrc, self._last_pts_ns = media, appsrc, -1
        log.info("a viewer came: encoding")

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

    def _on_unprepared(self, media: Any) -> None:
        with self._lock:
            if media is not self._media:
                return
            self._media = self._appsrc = None
        log.info("the last viewer left: encoding no more")


def _caps(output: OutputFormat) -> str:
    return gstreamer.raw_caps(output.width, output.height, output.fps, output.matrix)
