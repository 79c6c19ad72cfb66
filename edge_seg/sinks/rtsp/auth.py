"""Who may watch: digest authentication, and the certificate of the server."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

from edge_seg import gstreamer, secret
from edge_seg.errors import ConfigError
from edge_seg.sinks.rtsp.settings import RtspSettings, RtspUser

REALM = "edge-seg"
VIEW, NONE = "view", "none"


def make_auth(users: Sequence[RtspUser], certificate: Any, key: str = "outputs.users") -> Any:
    """A GstRtspServer.RTSPAuth for these users and this Gio.TlsCertificate (or None); None when there is neither.

    Raises ConfigError when a password cannot be read or is empty.
    """
    if not users and certificate is None:
        return None
    server, rtsp = gstreamer.load("GstRtspServer", "GstRtsp")[1:]
    auth = server.RTSPAuth.new()
    auth.set_realm(REALM)
    auth.set_supported_methods(rtsp.RTSPAuthMethod.DIGEST)
    if certificate is not None:
        auth.set_tls_certificate(certificate)
    for user in users:
        password = secret.read(f"{key}.{user.name}", user.password_file, user.password_env)
        if not password:
            where = user.password_file or user.password_env or "no password_file or password_env is named"
            raise ConfigError(f"{key}.{user.name}: the password is empty ({where})")
        auth.add_digest(user.name, password, _token(server, user.role))
    if not users:
        auth.set_default_token(_token(server, VIEW))
    return auth


def permit(factory: Any) -> None:
    """Lets those with the role `view` see and start the stream of `factory`, and nobody else."""
    gst = gstreamer.load()
    rights = "media.factory.access=(boolean)true,media.factory.construct=(boolean)true"
    factory.add_role_from_structure(gst.Structure.new_from_string(f"{VIEW},{rights}"))


def exposure(settings: RtspSettings) -> str | None:
    """What is to be warned of: that anybody in the network can watch. None when that is not so."""
    if settings.users or is_loopback(settings.address):
        return None
    return (
        f"anybody who reaches {settings.address}:{settings.port} can watch: no password is asked for; set "
        "outputs.users, or outputs.address to 127.0.0.1"
    )


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to the address or name."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def _token(server: Any, role: str) -> Any:
    token = server.RTSPToken.new()
    token.set_string("media.factory.role", role)
    return token
