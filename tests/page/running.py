"""A daemon's engine and its page, in this process."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPMessage
from types import TracebackType
from typing import Any

import numpy as np

from edge_seg.backgrounds import BackgroundSettings
from edge_seg.bench_realtime import NullSink
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.page.server import WebServer
from edge_seg.page.settings import WebSettings
from edge_seg.pyramid import Yuv444
from edge_seg.sources import Source, SyntheticSettings
from edge_seg.types import F32

PERSON = (slice(8, 36), slice(24, 40))
"""Where the model sees somebody, in rows and columns of its grid: the corners are the background's."""


class Somebody:
    """A model that sees somebody in the middle, at once."""

    name = "somebody"
    runtime_name = "nothing"
    input_size = (64, 36)

    def infer(self, small: Yuv444) -> F32:
        mask = np.zeros((36, 64), np.float32)
        mask[PERSON] = 1
        return mask


class Answer:
    """What an HTTP server answered."""

    def __init__(self, status: int, headers: HTTPMessage, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class RunningPage:
    """Frames flow, and the page is served on a free port. Use as a context manager."""

    def __init__(
        self,
        web: WebSettings | None = None,
        *,
        background: BackgroundSettings | None = None,
        build_source: Callable[[], Source] | None = None,
        waits: bool = True,
    ) -> None:
        """`waits`: for the first frames with a mask, before it counts as entered."""
        config = Config(
            source=SyntheticSettings(width=320, height=180, fps=30, motion="walk"),
            background=background or BackgroundSettings(colour="#2040c0"),
            web=web or WebSettings(port=0),
        )
        self.engine = Engine(
            config, sinks=[NullSink()], build_source=build_source, build_model=lambda _: Somebody()
        )
        self._server = WebServer(config.web, self.engine)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.engine.run, args=(self._stop,))
        self._waits = waits
        self.server = self._server

    @property
    def url(self) -> str:
        """With the address, not the host's name, which a test's machine may not resolve."""
        assert self._server.url is not None
        return f"http://127.0.0.1:{self._server.url.rstrip('/').rpartition(':')[2]}"

    def __enter__(self) -> RunningPage:
        self._server.__enter__()
        self.engine.followers["web"] = lambda new: self._server.apply(new.web)
        self._thread.start()
        deadline = time.monotonic() + 20
        while self._waits and (self.engine.frames_out < 3 or self.engine.shown_mask is None):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        return self._ask(urllib.request.Request(self.url + path, headers=dict(headers or {}), method=method))

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        return self._ask(urllib.request.Request(self.url + path, data=data, headers=headers))

    def _ask(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=20) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())
