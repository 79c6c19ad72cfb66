"""Who may ask for what: a token, sessions, and requests that other sites' pages make in a browser."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from edge_seg.page.settings import is_loopback

SESSION_S = 12 * 3600
MOST_SESSIONS = 64


class Guard:
    """Decides on requests. The clock is an argument."""

    def __init__(self, token: str | None, address: str, hosts: tuple[str, ...] = ()) -> None:
        """Without a token, everybody may ask who reaches `address`: only this machine, by the settings' checks."""
        self._token = None if token is None else _digest(token)
        self._any_host = not is_loopback(address)
        self._hosts = {host.lower() for host in hosts}
        self._sessions: dict[bytes, float] = {}
        """Digest of a session's name -> when it ends."""

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def is_known_host(self, host: str) -> bool:
        """Whether `host`, as the request names it, is ours. A site whose name was bound to 127.0.0.1 in between
        (DNS rebinding) would read this page as its own; beyond loopback the token stands in its way."""
        name = (urlsplit(f"//{host}").hostname or "").lower()
        return self._any_host or is_loopback(name) or name in self._hosts

    def is_token(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(self._token, _digest(token))

    def log_in(self, token: str, now_s: float) -> str | None:
        """The name of a new session, for a cookie; None for a wrong token."""
        if not self.is_token(token):
            return None
        self._sessions = {name: end_s for name, end_s in self._sessions.items() if end_s > now_s}
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda name: self._sessions[name])]
        name = secrets.token_urlsafe(32)
        self._sessions[_digest(name)] = now_s + SESSION_S
        return name

    def log_out(self, session: str) -> None:
        self._sessions.pop(_digest(session), None)

    def lets_in(self, authorization: str | None, session: str | None, now_s: float) -> bool:
        """Whether a request with these may see what the token guards."""
        if self._token is None:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(token.strip()):
            return True
        return session is not None and self._sessions.get(_digest(session), 0.0) > now_s


def is_foreign(headers: Mapping[str, str], *, changes: bool) -> str | None:
    """Why a request was made by another site's page, None when it was not (CSRF, and pictures that other sites
    put into theirs). `changes`: whether the request is to change something."""
    site = headers.get("Sec-Fetch-Site", "none")
    is_visit = headers.get("Sec-Fetch-Mode") == "navigate" and not changes
    if site not in ("none", "same-origin") and not is_visit:
        return "A page of another site asked for it"
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("Host", "").lower():
        return "Origin is another site"
    if changes and headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return "Content-Type must be application/json"  # forms of other sites cannot send that
    return None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
