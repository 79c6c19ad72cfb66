"""One source from its opening to its loss, in a thread of its own that can be left behind when a driver hangs in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

from edge_seg.errors import EdgeSegError, SourceLost
from edge_seg.freshness import Freshness
from edge_seg.geometry import Geometry
from edge_seg.sources.base import PlacingSource, Source
from edge_seg.types import Frame

READ_TIMEOUT_NS = 100_000_000


class Reader:
    """One source from its opening to its loss, in a thread of its own."""

    def __init__(
        self,
        source: Source,
        deliver: Callable[[Reader, Frame, bool], None],
        changed: threading.Condition,
        stale_ns: int,
        may_repeat: bool,
    ) -> None:
        self.source = source
        self.thread = threading.Thread(target=self._run, name="source", daemon=True)
        self.freshness = Freshness(stale_ns, may_repeat, time.monotonic_ns())
        self.first_seq = 0
        self.delivered = False
        self.is_open = False
        self.is_left = False
        self.error: EdgeSegError | None = None
        self.geometry: Geometry | None = None
        """What the pictures are to be placed by from the next one on; None: as the source was made."""
        self._deliver = deliver
        self._changed = changed
        self._stale_ns = stale_ns
        self._may_repeat = may_repeat

    def judge(self, stale_ns: int, may_repeat: bool) -> None:
        self._stale_ns, self._may_repeat = stale_ns, may_repeat
        self.freshness = Freshness(stale_ns, may_repeat, time.monotonic_ns())

    def _run(self) -> None:
        try:
            self.source.open()
            with self._changed:
                self.freshness = Freshness(self._stale_ns, self._may_repeat, time.monotonic_ns())
                self.is_open = True
                self._changed.notify_all()
            is_other_view = False
            while not self.is_left:
                # Between two reads: whatever is read after this shows the new view.
                if self.geometry is not None:
                    placing, self.geometry = self.geometry, None
                    cast(PlacingSource, self.source).geometry = placing
                    is_other_view = True
                frame = self.source.read(READ_TIMEOUT_NS)
                if frame is not None:
                    self.freshness.saw(frame.picture, time.monotonic_ns())
                    self._deliver(self, frame, is_other_view)
                    is_other_view = False
        except EdgeSegError as error:
            # Without its traceback, whose frames refer to the source, and so to an open device, in a circle.
            self.error = error.with_traceback(None)
            self.error.__context__ = self.error.__cause__ = None
        finally:
            with self._changed:
                # An error that is not ours is a defect: its traceback goes to standard error, the camera comes back.
                self.error = self.error or SourceLost(f"{self.source.name}: ended unexpectedly")
                self._changed.notify_all()
            if self.is_left:
                self.source.close()  # it was left behind while it opened, and has opened since
