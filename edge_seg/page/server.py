"""The HTTP server, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry
from tornado import httpserver, iostream, netutil, web

from edge_seg import telemetry
from edge_seg.engine import Engine
from edge_seg.errors import ConfigError
from edge_seg.page.base import Handler, Shared
from edge_seg.page.controls import Controls
from edge_seg.page.guard import Guard
from edge_seg.page.handlers import ROUTES
from edge_seg.page.preview import Preview
from edge_seg.page.settings import WebSettings, read_token
from edge_seg.page.state import BoardReader

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 32
LARGEST_BODY = 4096
LARGEST_HEADERS = 16 * 1024
IDLE_S = 30.0
"""A connection on which no request begins, or none ends, for so long is closed."""
STOP_DEADLINE_S = 2.0


class WebServer:
    """Serves metrics, health and the page while it is entered. A port that is taken is a warning: the video matters
    more. A token that is needed and not there is an error: nothing is shown to everybody by mistake."""

    def __init__(self, settings: WebSettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._registry = telemetry.registry(engine)
        self._controls = Controls()
        self._running: _Running | None = None

    @property
    def url(self) -> str | None:
        """Where it listens; None while it does not."""
        return None if self._running is None else self._running.url

    def __enter__(self) -> WebServer:
        if self._settings.port is not None:
            read_token(self._settings)
            try:
                self._running = self._listen(self._settings)
            except ConfigError as error:
                log.warning("no page and no metrics: %s", str(error).removeprefix("web.port: "))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def apply(self, settings: WebSettings) -> None:
        """Serves by other settings from now on. Raises ConfigError where it cannot; then the old ones stay."""
        if settings.port is not None:
            read_token(settings)
        before, self._settings = self._settings, settings
        # What else there is, the handlers read anew at each request.
        if self._running is not None and _listens_alike(before, settings):
            return
        self._close()  # first: it may be the same port
        try:
            self._running = self._listen(settings)
        except ConfigError:
            self._settings = before
            with contextlib.suppress(ConfigError):
                self._running = self._listen(before)
            raise

    def _listen(self, settings: WebSettings) -> _Running | None:
        if settings.port is None:
            return None
        running = _Running(settings, self._engine, self._registry, self._controls)
        log.info("page, metrics and health at %s", running.url)
        return running

    def _close(self) -> None:
        running, self._running = self._running, None
        if running is not None and not running.stop(STOP_DEADLINE_S):
            log.warning("the HTTP server did not end within %g s; leaving it", STOP_DEADLINE_S)


def _listens_alike(one: WebSettings, other: WebSettings) -> bool:
    """Whether a server with the one settings is one with the others, as far as who is let in where."""
    keys = ("address", "port", "token_file", "token_env", "hosts")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


class _Running:
    """One server from its start to its stop."""

    def __init__(
        self, settings: WebSettings, engine: Engine, registry: CollectorRegistry, controls: Controls
    ) -> None:
        assert settings.port is not None
        try:
            sockets = netutil.bind_sockets(settings.port, settings.address)
        except OSError as error:
            where = f"{settings.address}:{settings.port}"
            raise ConfigError(f"web.port: cannot listen on {where}: {error.strerror or error}") from error
        host = settings.address
        if host in ("0.0.0.0", "::", ""):
            host = socket.gethostname()
        port = sockets[0].getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        guard = Guard(read_token(settings), settings.address, settings.hosts)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

        async def serve() -> None:
            preview = Preview(engine.tap)
            shared = Shared(engine, guard, registry, preview, controls, BoardReader())
            server = _server(shared)
            server.add_sockets(sockets)
            await self._stop.wait()
            server.stop()
            await preview.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.close_all_connections(), STOP_DEADLINE_S / 2)
            deadline_s = self._loop.time() + STOP_DEADLINE_S / 4
            while preview.watchers and self._loop.time() < deadline_s:
                await asyncio.sleep(0.01)

        self._thread = threading.Thread(target=self._run, args=(serve(),), name="web", daemon=True)
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Asks the thread to end and waits. Returns whether it did."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self, serve: Any) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(serve)
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


class _LimitedServer(httpserver.HTTPServer):
    """Takes no more than MOST_CONNECTIONS at a time."""

    connections = 0

    def handle_stream(self, stream: iostream.IOStream, address: tuple[Any, ...]) -> None:
        if self.connections >= MOST_CONNECTIONS:
            stream.close()
            return
        self.connections += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self.connections -= 1
        super().on_close(server_conn)


def _server(shared: Shared) -> httpserver.HTTPServer:
    application = web.Application(
        [(path, handler, {"shared": shared}) for path, handler in ROUTES],
        default_handler_class=_Nothing,
        default_handler_args={"shared": shared},
        log_function=_log_failures,
    )
    # What a stranger sends is not worth a line each.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    return _LimitedServer(
        application,
        max_body_size=LARGEST_BODY,
        max_buffer_size=2 * LARGEST_BODY + LARGEST_HEADERS,
        max_header_size=LARGEST_HEADERS,
        idle_connection_timeout=IDLE_S,
        body_timeout=IDLE_S,
    )


class _Nothing(Handler):
    is_open = True

    def prepare(self) -> None:
        super().prepare()
        raise web.HTTPError(404)


def _log_failures(handler: web.RequestHandler) -> None:
    """Requests are no news, a defect is: its traceback has been logged by Tornado."""
    if handler.get_status() == 500:
        log.error("%s %s failed", handler.request.method, handler.request.path)
