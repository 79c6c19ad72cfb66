"""Any pipeline that the user writes, for what there is no other source for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.sources.base import GstSettings
from edge_seg.sources.gst import LIVE_SINK, OPEN_TIMEOUT_NS, SLICE_NS, GstSource


class LaunchSource(GstSource):
    """A launch text that comes to raw video."""

    def __init__(self, settings: GstSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(clock)
        text = " ".join(settings.launch.split())
        self.name = f"gst: {text if len(text) <= 60 else text[:57] + '...'}"
        self._text = text

    def _build(self) -> Any:
        gst, glib = gstreamer.load("GLib")
        try:
            pipeline = gst.parse_launch(f"{self._text} ! {LIVE_SINK}")
        except glib.Error as error:
            raise ConfigError(f"source.launch: {error.message}: {self._text}") from error
        if not isinstance(pipeline, gst.Pipeline) or pipeline.get_by_name("sink") is None:
            raise ConfigError(f"source.launch: is no pipeline: {self._text}")
        return pipeline

    def _start(self) -> None:
        """Finds out whether the pipeline is live. One that is not (a file) has to be played by the clock."""
        gst = gstreamer.load()
        self._set_state(gst.State.PAUSED)
        deadline_ns = self._clock() + OPEN_TIMEOUT_NS
        change = gst.StateChangeReturn.ASYNC
        while change == gst.StateChangeReturn.ASYNC:
            change, _, _ = self._opened(self._pipeline).get_state(SLICE_NS)
            self._handle_messages()
            if self._clock() > deadline_ns:
                raise SourceLost(f"{self.name}: no picture within {OPEN_TIMEOUT_NS / 1e9:.0f} s")
        if change == gst.StateChangeReturn.FAILURE:
            raise SourceLost(f"{self.name}: the pipeline does not start")
        self._opened(self._sink).set_property("sync", change != gst.StateChangeReturn.NO_PREROLL)
        super()._start()

    def _failed(self, error: Any, debug: str) -> Exception:
        last = debug.strip().splitlines()[-1].strip() if debug.strip() else ""
        return SourceLost(f"{self.name}: {error.message}" + (f" ({last})" if last else ""))
