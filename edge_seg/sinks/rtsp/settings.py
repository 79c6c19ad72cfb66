"""What can be set about an RTSP output."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Len, MinLen, MultipleOf
from pydantic import AfterValidator

from edge_seg.encoders import Encoding


def _multicast(address: str) -> str:
    try:
        is_multicast = ipaddress.IPv4Address(address).is_multicast
    except ValueError:
        is_multicast = False
    if not is_multicast:
        raise ValueError("an IPv4 multicast address, such as 239.255.42.42")
    return address


def _plain_path(path: str) -> str:
    if not path.startswith("/") or not path.isprintable() or set(path) & set(" ?#"):
        raise ValueError("a path such as /live")
    return path


@dataclass(frozen=True)
class RtspUser:
    """Somebody who may connect, or is known and may not."""

    name: Annotated[str, MinLen(1)]
    password_file: str | None = None
    """The password is this file's first line."""
    password_env: str | None = None
    """Or the value of this environment variable."""
    role: Literal["view", "none"] = "view"
    """none: the password is right, and there is nothing to see."""


@dataclass(frozen=True)
class TlsSettings:
    """The certificate by which viewers know the server: `rtsps://` instead of `rtsp://`."""

    certificate: str
    """A PEM file, with the chain if there is one."""
    key: str
    """A PEM file, without a passphrase."""
    self_signed: bool = False
    """Makes both files where they are not there. Viewers must then be told to accept this certificate."""


@dataclass(frozen=True)
class MulticastSettings:
    """One stream into the network for all viewers who ask for it. It is encrypted for none of them."""

    address: Annotated[str, AfterValidator(_multicast)] = "239.255.42.42"
    """An IPv4 multicast address, 239.0.0.0/8 by custom."""
    port: Annotated[int, Ge(1024), Le(65534), MultipleOf(2)] = 5004
    """Of RTP; RTCP takes the next one."""
    ttl: Annotated[int, Ge(1), Le(255)] = 1
    """Routers on the way. 1: this network only."""


@dataclass(frozen=True)
class RtspSettings(Encoding):
    """An RTSP server that viewers connect to."""

    type: Literal["rtsp"] = "rtsp"
    address: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 is every network this machine is in."""
    port: Annotated[int, Ge(0), Le(65535)] = 8554
    """0 takes any free port and logs which."""
    path: Annotated[str, AfterValidator(_plain_path)] = "/live"
    users: tuple[RtspUser, ...] = ()
    """Who may watch; without users, everybody who can connect."""
    tls: TlsSettings | None = None
    transports: Annotated[tuple[Literal["udp", "tcp"], ...], Len(1, 2)] = ("udp", "tcp")
    """How pictures travel; viewers choose among them."""
    multicast: MulticastSettings | None = None
    max_viewers: Annotated[int, Ge(1), Le(1000)] = 50
    max_sessions_per_address: Annotated[int, Ge(0), Le(1000)] = 0
    """Viewers from one address; 0: no limit of their own."""
