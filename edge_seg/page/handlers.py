"""What the server answers, path by path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from tornado import iostream, web

from edge_seg.engine import Engine
from edge_seg.errors import EdgeSegError
from edge_seg.health import unhealthy, unready
from edge_seg.page import state
from edge_seg.page.controls import Controls
from edge_seg.page.guard import SESSION_S, Guard, is_foreign
from edge_seg.page.pictures import VIEWS, View
from edge_seg.page.preview import Preview, TooManyWatchers

log = logging.getLogger(__name__)

COOKIE = "edge_seg_session"
SEND_DEADLINE_S = 10.0
"""A watcher who takes no picture for so long is gone."""
LOOK_S = 1.0
"""How often a watcher's connection is looked at while no picture comes."""
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
    board: state.BoardReader
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


class Page(Handler):
    is_page = True

    def turn_away(self) -> None:
        self.redirect("login")

    def get(self) -> None:
        self.file("index.html")


class Login(Handler):
    is_open = is_page = True

    def get(self) -> None:
        if self.is_let_in:
            self.redirect(".")
        else:
            self.file("login.html")

    def post(self) -> None:
        wish = self.read_json()
        token = wish.get("token") if isinstance(wish, dict) else None
        session = self.shared.guard.log_in(token, time.monotonic()) if isinstance(token, str) else None
        if session is None:
            self.json({"error": "That is not the token."}, 403)
            return
        self.set_cookie(
            COOKIE,
            session,
            httponly=True,
            samesite="Strict",
            secure=self.request.protocol == "https",
            max_age=SESSION_S,
            expires_days=None,
        )
        self.json({})


class Logout(Handler):
    is_open = is_page = True

    def post(self) -> None:
        self.shared.guard.log_out(self.get_cookie(COOKIE) or "")
        self.clear_cookie(COOKIE)
        self.json({})


class Static(Handler):
    is_open = is_page = True

    def get(self, name: str) -> None:
        if name not in FILES or name.endswith(".html"):
            raise web.HTTPError(404)
        self.file(name)


class State(Handler):
    is_page = True

    def get(self) -> None:
        shared = self.shared
        config = shared.engine.config
        answer = state.describe(shared.engine, shared.board.read(time.monotonic()), shared.preview.watchers)
        answer["views"] = [view for view in VIEWS if view != "camera" or config.web.show_camera]
        answer["controls"] = shared.controls.describe(config) if config.web.controls else None
        answer["login"] = shared.guard.needs_token
        self.json(answer)


class Change(Handler):
    """The live controls."""

    is_page = True

    async def post(self) -> None:
        shared = self.shared
        if not shared.engine.config.web.controls:
            raise web.HTTPError(403, reason="web.controls is off")
        wishes = self.read_json()
        async with shared.changing:
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._change, wishes)
            except EdgeSegError as error:
                self.json({"error": str(error)}, 400)
                return
        self.json(shared.controls.describe(shared.engine.config))

    def _change(self, wishes: object) -> None:
        engine = self.shared.engine
        engine.reload(self.shared.controls.apply(engine.config, wishes))


class Picture(Handler):
    """One picture of a view."""

    is_page = True

    def view(self) -> View:
        name = self.get_query_argument("view", "output")
        view = next((view for view in VIEWS if view == name), None)
        if view is None:
            raise web.HTTPError(404, reason="No such view")
        if view == "camera" and not self.shared.engine.config.web.show_camera:
            raise web.HTTPError(403, reason="web.show_camera is off")
        return view

    async def get(self) -> None:
        view = self.view()
        try:
            with self.shared.preview.watch(view):
                found = await self.shared.preview.next(view, self.shared.preview.asked, LOOK_S * 3)
        except TooManyWatchers:
            raise web.HTTPError(503, reason="Too many watch already") from None
        if found is None:
            raise web.HTTPError(503, reason="No picture leaves")
        self.set_header("Content-Type", "image/jpeg")
        self.finish(found[1])


class Moving(Picture):
    """A view as it moves: MJPEG, until the watcher goes."""

    is_gone = False

    def on_connection_close(self) -> None:
        self.is_gone = True

    async def get(self) -> None:
        view = self.view()
        self.set_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
        try:
            with self.shared.preview.watch(view), contextlib.suppress(iostream.StreamClosedError):
                await self._send(view)
        except TooManyWatchers:
            raise web.HTTPError(503, reason="Too many watch already") from None

    async def _send(self, view: View) -> None:
        number = 0
        self.write(b"--picture\r\n")
        while not self.is_gone and not self.shared.preview.is_closed:
            found = await self.shared.preview.next(view, number, LOOK_S)
            if found is None:
                continue
            number, picture = found
            self.write(
                b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n--picture\r\n"
                % (len(picture), picture)
            )
            try:
                await asyncio.wait_for(cast("Awaitable[None]", self.flush()), SEND_DEADLINE_S)
            except asyncio.TimeoutError:
                cast("Any", self.request.connection).close()
                return


class Metrics(Handler):
    def get(self) -> None:
        encode, content_type = choose_encoder(self.request.headers.get("Accept", ""))
        self.set_header("Content-Type", content_type)
        self.finish(encode(self.shared.registry))


class Healthz(Handler):
    """Is a fresh frame leaving? Open to all, since those who ask (load balancers, kubelets) have no token; why not is
    told to those who have one."""

    is_open = True
    judge = staticmethod(unhealthy)

    def get(self) -> None:
        engine = self.shared.engine
        reason = self.judge(engine.status(), engine.config.source.stale_ms, time.monotonic_ns())
        if reason is None:
            self.text(200, "ok")
        else:
            self.text(503, reason if self.is_let_in else "no")

    head = get


class Readyz(Healthz):
    judge = staticmethod(unready)


ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/", Page),
    (r"/login", Login),
    (r"/logout", Logout),
    (r"/static/([a-z.]+)", Static),
    (r"/api/state", State),
    (r"/api/controls", Change),
    (r"/preview\.jpg", Picture),
    (r"/preview\.mjpeg", Moving),
    (r"/metrics", Metrics),
    (r"/healthz", Healthz),
    (r"/readyz", Readyz),
]
