"""What all handlers have in common: headers, who is let in, forms of answers."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, cast

from prometheus_client import CollectorRegistry
from tornado import web

from edge_seg.engine import Engine
from edge_seg.page.controls import Controls
from edge_seg.page.guard import Guard, is_foreign
from edge_seg.page.preview import Preview
from edge_seg.page.state import BoardReader

COOKIE = "edge_seg_session"
FILES = {
    "index.html": "text/html; charset=utf-8",
    "login.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "login.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "edge-seg",
}


@dataclass
class Shared:
    """What all handlers work with. Belongs to one event loop."""

    engine: Engine
    guard: Guard
    registry: CollectorRegistry
    preview: Preview
    controls: Controls
    board: BoardReader
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Handler(web.RequestHandler):
    """Headers, and who is let in, for all of them."""

    is_open = False
    """Whether it answers without a token, too."""
    is_page = False
    """Whether it is part of the page, which the settings can leave out."""

    def initialize(self, shared: Shared) -> None:
        self.shared = shared

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        headers = cast("dict[str, str]", self.request.headers)
        if not self.shared.guard.is_known_host(self.request.host):
            raise web.HTTPError(403, reason="Unknown host")
        foreign = is_foreign(headers, changes=self.request.method == "POST")
        if foreign is not None:
            raise web.HTTPError(403, reason=foreign)
        if self.is_page and not self.shared.engine.config.web.page:
            raise web.HTTPError(404)
        if not self.is_open and not self.is_let_in:
            self.turn_away()

    def turn_away(self) -> None:
        self.set_header("WWW-Authenticate", 'Bearer realm="edge-seg"')
        raise web.HTTPError(401, reason="A token is needed")

    @property
    def is_let_in(self) -> bool:
        authorization = self.request.headers.get("Authorization")
        return self.shared.guard.lets_in(authorization, self.get_cookie(COOKIE), time.monotonic())

    def text(self, status: int, line: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(line + "\n")

    def json(self, value: object, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value, separators=(",", ":")))

    def write_error(self, status_code: int, **_: Any) -> None:
        self.text(status_code, f"{status_code} {self._reason}")

    def read_json(self) -> Any:
        try:
            return json.loads(self.request.body)
        except ValueError as error:
            raise web.HTTPError(400, reason="Not JSON") from error

    def file(self, name: str) -> None:
        self.set_header("Content-Type", FILES[name])
        self.finish((resources.files("edge_seg.page") / "static" / name).read_bytes())
