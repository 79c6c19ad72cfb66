"""The RTSP output: server, viewers, encoder, put together."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from typing import Any

from edge_seg import encoders
from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sinks.rtsp.auth import exposure, make_auth
from edge_seg.sinks.rtsp.media import Media
from edge_seg.sinks.rtsp.server import Server
from edge_seg.sinks.rtsp.settings import RtspSettings
from edge_seg.sinks.rtsp.tls import load_certificate
from edge_seg.sinks.rtsp.viewers import Viewers
from edge_seg.types import I420

log = logging.getLogger(__name__)

LIVE_KEYS = ("bitrate_kbps", "max_viewers", "max_sessions_per_address")
"""What can be changed while viewers watch."""


class RtspSink(Sink):
    """Serves the pictures at rtsp://address:port/path to any number of viewers."""

    name = "rtsp"

    def __init__(self, settings: RtspSettings) -> None:
        self._settings = settings
        self._media: Media | None = None
        self._server: Server | None = None
        self._viewers = Viewers(settings.max_viewers, settings.max_sessions_per_address, self._on_play)
        self._output: OutputFormat | None = None
        self._encoder: encoders.Encoder | None = None

    @property
    def url(self) -> str:
        settings = self._settings
        host = socket.gethostname() if settings.address in ("0.0.0.0", "::") else settings.address
        scheme = "rtsp" if settings.tls is None else "rtsps"
        port = settings.port if self._server is None else self._server.port
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{settings.path}"

    @property
    def wants_pictures(self) -> bool:  # type: ignore[override]
        """Whether somebody watches, that is, whether pictures are being encoded; or a failure is to be dealt with."""
        media = self._media
        return media is not None and (media.is_watched or media.failure is not None)

    @property
    def viewers(self) -> int:
        return self._viewers.playing

    @property
    def encoder(self) -> str | None:
        return self._encoder.element if self._encoder is not None and self.wants_pictures else None

    def open(self, output: OutputFormat) -> None:
        settings = self._settings
        certificate = None if settings.tls is None else load_certificate(settings.tls, settings.address)
        auth = make_auth(settings.users, certificate)
        self._output = output
        media = self._media = self._make_media()
        self._server = Server(
            settings.address, settings.port, settings.path, media.factory, auth, self._viewers
        )
        media.on_renewed = self._server.serve
        self._server.on_sweep = self._sweep
        log.info("serving %s (%dx%d)", self.url, output.width, output.height)
        warning = exposure(settings)
        if warning is not None:
            log.warning("%s", warning)

    def reformat(self, output: OutputFormat) -> None:
        self._output = output
        self._configure()

    def push(self, picture: I420, captured_ns: int) -> None:
        assert self._media is not None
        if self._media.failure is not None:
            self._recover(*self._media.failure)
        self._media.push(picture, captured_ns)

    def adjust(self, settings: Any) -> bool:
        before = self._settings
        changes = {key: getattr(settings, key) for key in LIVE_KEYS}
        if replace(before, **changes) != settings:
            return False
        if settings.bitrate_kbps != before.bitrate_kbps and not self._set_bitrate(settings):
            return False
        self._settings = settings
        self._viewers.max_viewers = settings.max_viewers
        self._viewers.max_per_address = settings.max_sessions_per_address
        self._configure()
        return True

    def close(self) -> None:
        server, self._server = self._server, None
        media, self._media = self._media, None
        if server is not None:
            server.close()
        if media is not None:
            media.forget()

    def _set_bitrate(self, settings: RtspSettings) -> bool:
        assert self._media is not None
        assert self._encoder is not None
        assert self._output is not None
        kbps = settings.for_format(self._output).bitrate_kbps
        return all(self._encoder.set_bitrate(element, kbps) for element in self._media.encoder_elements())

    def _make_media(self) -> Media:
        """With the best encoder that has not failed yet."""
        assert self._output is not None
        settings, output = self._settings, self._output
        self._encoder = encoders.choose(
            wanted=settings.encoder, codec=settings.codec, size=(output.width, output.height)
        )
        media = Media()
        media.set_transports(settings.transports, settings.multicast)
        media.configure(self._encoder, settings.for_format(output), output)
        return media

    def _configure(self) -> None:
        assert self._media is not None
        assert self._encoder is not None
        assert self._output is not None
        self._media.configure(self._encoder, self._settings.for_format(self._output), self._output)

    def _recover(self, is_encoder: bool, why: str) -> None:
        """After an error in the pipeline: another one, perhaps with another encoder, for viewers who come back."""
        assert self._media is not None
        assert self._encoder is not None
        assert self._server is not None
        if not is_encoder:
            raise SinkError(f"the RTSP output's pipeline failed: {why}")
        if self._settings.encoder == "auto":
            encoders.report_failure(self._encoder, why)
        else:
            log.warning("%s failed (%s): viewers have to connect again", self._encoder.element, why)
        self._media.forget()
        # A factory of its own: the old one would hand out the broken pipeline until its last viewer has gone.
        self._media = self._make_media()
        self._media.on_renewed = self._server.serve
        self._server.serve(self._media.factory)
        self._server.disconnect_all()

    def _sweep(self) -> None:
        media = self._media
        if media is not None:
            media.sweep(is_idle=self._viewers.admitted == 0)

    def _on_play(self) -> None:
        if self._media is not None:
            self._media.request_key_frame()
