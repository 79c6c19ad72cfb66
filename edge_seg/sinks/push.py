"""Publishing to a media server, which passes the pictures on to any number of viewers: RTSP, SRT, RTMP."""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from annotated_types import Ge, Le, Len, MinLen
from pydantic import AfterValidator

from edge_seg import gstreamer, secret
from edge_seg.encoders import Encoder, Encoding
from edge_seg.errors import ConfigError, SinkError
from edge_seg.sinks import sockets
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.encoded import EncodedSink
from edge_seg.types import I420

log = logging.getLogger(__name__)

SCHEMES = ("rtsp", "rtsps", "srt", "rtmp", "rtmps")
PORTS = {"rtsp": 554, "rtsps": 322, "srt": 0, "rtmp": 1935, "rtmps": 443}
CONNECT_S = 5.0
SILENCE_MS = 3000
"""A server that confirms nothing for so long is gone: a network that swallows everything says nothing. So is one that
reads nothing of what its system confirms."""
UNSENT_S = 1.0
"""So much may wait in the system for the network; more would only be late, and hide that it is gone."""
LOOK_EVERY = 10
TAKEN = 20
"""When so many pictures were taken, the server takes them: fewer wait on the way to it."""


def _server_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("a URL such as rtsp://server:8554/camera, srt://server:8890 or rtmp://server/live")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("a URL with a port from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError("a URL with a host")
    if parts.scheme == "srt" and port is None:
        raise ValueError("an SRT URL with a port, such as srt://server:8890")
    if "@" in parts.netloc or "passphrase" in parse_qs(parts.query):
        raise ValueError("a URL without user and password; `user` and `password_file` are keys of their own")
    return url


@dataclass(frozen=True, kw_only=True)
class PushSettings(Encoding):
    """A media server elsewhere that the pictures are published to."""

    type: Literal["push"] = "push"
    url: Annotated[str, AfterValidator(_server_url)]
    """rtsp:// and rtsps:// (RECORD), srt:// (MPEG-TS, as caller), rtmp:// and rtmps://."""
    transport: Literal["tcp", "udp"] = "tcp"
    """Of RTSP."""
    latency_ms: Annotated[int, Ge(20), Le(8000)] = 125
    """Of SRT: how long a lost packet can be sent again."""
    user: Annotated[str, Len(0, 255)] = ""
    password_file: Annotated[str, MinLen(1)] | None = None
    """Its first line is the password; with SRT the passphrase, with RTMP without a user the stream key, which is put
    behind the URL."""
    password_env: Annotated[str, MinLen(1)] | None = None
    """Or it is the value of this environment variable."""


class PushSink(EncodedSink):
    """One connection to the server. Once that is lost, `push` raises, and another sink is made."""

    name = "push"

    def __init__(self, settings: PushSettings) -> None:
        super().__init__(settings)
        self._push = settings
        self._scheme = urlsplit(settings.url).scheme
        self._secret = ""
        self._peers: set[sockets.Address] = set()
        self._pushed = 0
        self._connections: dict[sockets.Address, sockets.Reading] = {}
        self._others: set[sockets.Address] = set()
        """Connections of other outputs to the same server."""
        self._send_buffer = 0

    def open(self, output: OutputFormat) -> None:
        try:
            self._secret = secret.read("outputs", self._push.password_file, self._push.password_env)
        except ConfigError as error:
            raise SinkError(f"{self._where()}: {error}", permanent=True) from error
        if self._scheme == "srt" and self._secret and not 10 <= len(self._secret) <= 79:
            raise SinkError(f"{self._where()}: a passphrase of SRT has 10 to 79 characters", permanent=True)
        self._peers = self._resolve()
        self._pushed, self._connections = 0, {}
        self._send_buffer = round(self._push.for_format(output).bitrate_kbps * 125 * UNSENT_S)
        self._others = set(sockets.tune(self._peers, SILENCE_MS, self._send_buffer))
        super().open(output)

    def push(self, picture: I420, captured_ns: int) -> None:
        super().push(picture, captured_ns)
        self._pushed += 1
        if self._pushed == TAKEN:
            log.info(self._where())
        # The connection is made by and by, and by GStreamer: it is looked for until it is there, and after that.
        if self._scheme != "srt" and self._pushed % LOOK_EVERY == 0:
            self._look_at_connection()

    def _look_at_connection(self) -> None:
        there = sockets.tune(self._peers, SILENCE_MS, self._send_buffer)
        for other in self._others:
            there.pop(other, None)
        if not self._connections:
            self._connections = {address: sockets.Reading(SILENCE_MS) for address in there}
        for address, reading in self._connections.items():
            # rtspclientsink connects again by itself, and goes on without telling the server what it is.
            if address not in there:
                self._is_broken = True
                raise SinkError(f"{self._where()}: the connection was lost")
            received = there[address]
            if received is not None and reading.is_silent(received, self._clock()):
                self._is_broken = True
                raise SinkError(f"{self._where()}: the server has read nothing for {SILENCE_MS / 1000:g} s")

    def _behind(self, encoder: Encoder) -> str:
        element, package = {
            "rtsp": ("rtspclientsink", "gstreamer1.0-rtsp"),
            "srt": ("srtsink", "gstreamer1.0-plugins-bad"),
            "rtmp": ("rtmp2sink", "gstreamer1.0-plugins-bad"),
        }[self._scheme.removesuffix("s")]
        if gstreamer.load().ElementFactory.find(element) is None:
            raise SinkError(
                f"{self._where()}: {element} is missing; run `sudo apt install {package}`", permanent=True
            )
        parser = f"{encoder.parser} config-interval=-1"
        if element == "rtspclientsink":
            return f"{parser} ! rtspclientsink name=server"
        if element == "srtsink":
            return f"{parser} ! mpegtsmux alignment=7 ! srtsink name=server sync=false"
        return f"{encoder.parser} ! flvmux streamable=true ! rtmp2sink name=server sync=false"

    def _prepare(self, pipeline: Any) -> None:
        settings, server = self._push, pipeline.get_by_name("server")
        if self._scheme in ("rtsp", "rtsps"):
            _, rtsp = gstreamer.load("GstRtsp")
            flags = rtsp.RTSPLowerTrans
            server.set_property("location", settings.url)
            server.set_property("protocols", flags.TCP if settings.transport == "tcp" else flags.UDP)
            server.set_property("tcp-timeout", int(CONNECT_S * 1e6))
            server.set_property("latency", 0)
            if settings.user:
                server.set_property("user-id", settings.user)
                server.set_property("user-pw", self._secret)
        elif self._scheme == "srt":
            server.set_property("uri", settings.url)
            server.set_property("latency", settings.latency_ms)
            server.set_property("wait-for-connection", True)
            if server.find_property("auto-reconnect") is not None:  # GStreamer 1.22: by itself and in silence
                server.set_property("auto-reconnect", False)
            if self._secret:
                server.set_property("passphrase", self._secret)
                server.set_property("pbkeylen", 16)
        else:
            key = f"/{self._secret}" if self._secret and not settings.user else ""
            server.set_property("location", settings.url.rstrip("/") + key)
            server.set_property("timeout", int(CONNECT_S))
            if settings.user:
                server.set_property("username", settings.user)
                server.set_property("password", self._secret)

    def _resolve(self) -> set[sockets.Address]:
        """Where the server is, as (address, port)."""
        parts = urlsplit(self._push.url)
        try:
            found = socket.getaddrinfo(
                parts.hostname, parts.port or PORTS[self._scheme], type=socket.SOCK_STREAM
            )
        except OSError as error:
            raise SinkError(f"{self._where()}: {parts.hostname}: {error.strerror or error}") from error
        return {(str(entry[4][0]), int(entry[4][1])) for entry in found}

    def _where(self) -> str:
        return f"publishing to {secret.public_url(self._push.url)}"

    def _explain(self, error: Any, debug: str) -> str:
        text = explain(str(error.message), debug)
        return text.replace(self._secret, "***") if self._secret else text


def explain(message: str, debug: str) -> str:
    """One line on what is wrong, from an error of GStreamer and its details."""
    both = f"{message} {debug}"
    if "Unauthorized" in both or "Not authorized" in both or "401" in both:
        return "the server refuses this user or password (outputs.user, outputs.password_file)"
    last = debug.strip().splitlines()[-1].rpartition("): ")[2].strip() if debug.strip() else ""
    message = message.rstrip(".")
    if last.startswith("/Gst"):  # where it happened, not what
        return message
    return f"{message} ({last.rstrip('.')})" if last and last.rstrip(".") not in message else message
