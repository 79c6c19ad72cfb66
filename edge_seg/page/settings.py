"""What the page and its neighbours on the same port can be told."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from edge_seg import secret
from edge_seg.errors import ConfigError

SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class WebSettings:
    """Metrics, health and a page, over HTTP."""

    address: str = "127.0.0.1"
    """The address to listen on. 0.0.0.0 is every network this machine is in, and needs a token."""
    port: Annotated[int, Ge(0), Le(65535)] | None = None
    """None serves nothing, 0 takes any free port and logs which."""
    page: bool = True
    """Whether there is a page. False: only metrics and health."""
    controls: bool = True
    """Whether the page may change background, matte quality and mirror."""
    show_camera: bool = False
    """Whether the page may show what the camera sees, the real room, beside the output."""
    backgrounds: tuple[Path, ...] = ()
    """Images and videos that the page offers, beside the one of `background`."""
    token_file: Path | None = None
    """The token that opens page and metrics is this file's first line."""
    token_env: str | None = None
    """Or the value of this environment variable."""
    hosts: tuple[str, ...] = ()
    """Further names under which the page is reached, through a proxy on this machine."""


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach what listens on `address`."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def read_token(settings: WebSettings) -> str | None:
    """The token, from where the settings say that it is; None where there is none, and none is needed.

    Raises ConfigError, which never says the token.
    """
    if settings.token_file is None and settings.token_env is None:
        if is_loopback(settings.address):
            return None
        raise ConfigError(
            f"web.address: {settings.address} is not loopback: web.token_file or web.token_env is needed"
        )
    key = "web.token_env" if settings.token_file is None else "web.token_file"
    token = secret.read("web", settings.token_file, settings.token_env, "token").strip()
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(
            f"{key}: the token has {len(token)} characters, at least {SHORTEST_TOKEN} are needed "
            "(`openssl rand -hex 16` makes one)"
        )
    return token
