"""The preview over HTTP: one picture, or MJPEG."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, cast

from tornado import iostream, web

from edge_seg.page.base import Handler
from edge_seg.page.pictures import VIEWS, View
from edge_seg.page.preview import TooManyWatchers

SEND_DEADLINE_S = 10.0
"""A watcher who takes no picture for so long is gone."""
LOOK_S = 1.0
"""How often a watcher's connection is looked at while no picture comes."""


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
