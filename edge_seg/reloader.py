"""Takes a new configuration through its steps: what changes, what is made ready, who follows; back if one refuses."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from edge_seg.config import Config
from edge_seg.errors import EdgeSegError
from edge_seg.reload import (
    Change,
    ReloadReport,
    changed_files,
    changed_keys,
    effect_of,
    fingerprints,
    touches,
)
from edge_seg.stage import Prepared

log = logging.getLogger(__name__)

Follower: TypeAlias = Callable[[Config], object]
"""Makes something beside the frame loop work as the configuration says. Raises EdgeSegError where it cannot, and then
has changed nothing."""

Leftovers: TypeAlias = list[Callable[[], object]]
"""What is to be closed once the frame loop is done with it, and may take its time."""


class Reloader:
    """One reload at a time, from any thread but the frame loop's."""

    def __init__(
        self,
        config: Config,
        prepare: Callable[[Config, Sequence[str]], Prepared],
        take_over: Callable[[Config, Sequence[Change], Prepared], Leftovers | None],
    ) -> None:
        """`prepare` opens what is needed for changes of these keys. `take_over` has the frame loop use it, or returns
        None where what was prepared does not fit any more."""
        self._config = config
        self._prints = fingerprints(config)
        self._prepare = prepare
        self._take_over = take_over
        self._lock = threading.Lock()
        self.followers: dict[str, Follower] = {}
        """Section of the configuration -> what follows a change of it, where that is not the frame loop."""

    def reload(self, config: Config) -> ReloadReport:
        """Raises EdgeSegError (ConfigError, ModelError) where something cannot be opened; then everything is as it
        was."""
        with self._lock:
            started_ns = time.monotonic_ns()
            prints = fingerprints(config)
            keys = changed_keys(self._config, config)
            keys += [key for key in changed_files(self._prints, prints) if key not in keys]
            if not keys:
                return ReloadReport()
            changes = tuple(self._change(key) for key in keys)
            for leftover in self._apply(config, keys, changes):
                leftover()
            self._config, self._prints = config, prints
            report = ReloadReport(changes, (time.monotonic_ns() - started_ns) / 1e6)
            log.info("reloaded in %.0f ms: %s", report.took_ms, report, extra={"event": "reloaded"})
            return report

    def _change(self, key: str) -> Change:
        effect = effect_of(key)
        is_followed = effect != "server" or any(touches([key], section) for section in self.followers)
        return Change(key, effect, "" if is_followed else "from the next start on")

    def _apply(self, config: Config, keys: Sequence[str], changes: Sequence[Change]) -> Leftovers:
        prepared = self._prepare(config, keys)
        told: list[Follower] = []
        try:
            for section, follower in self.followers.items():
                if touches(keys, section):
                    follower(config)
                    told.append(follower)
            while (leftovers := self._take_over(config, changes, prepared)) is None:
                prepared.close()
                prepared = self._prepare(config, keys)
        except EdgeSegError:
            prepared.close()
            for follower in told:
                follower(self._config)
            raise
        return leftovers
