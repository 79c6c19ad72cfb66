"""What the server answers, path by path."""

from __future__ import annotations

import asyncio
import time

from prometheus_client.exposition import choose_encoder
from tornado import web

from edge_seg.errors import EdgeSegError
from edge_seg.health import unhealthy, unready
from edge_seg.page import state
from edge_seg.page.base import COOKIE, FILES, Handler
from edge_seg.page.guard import SESSION_S
from edge_seg.page.pictures import VIEWS
from edge_seg.page.watching import Moving, Picture


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
