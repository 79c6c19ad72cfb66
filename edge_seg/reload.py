"""What a change of the configuration touches, key by key, and what was done about it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_seg.config import Config
from edge_seg.config_checks import is_path

Effect = Literal["live", "reformat", "model", "source", "output", "server"]
"""live: from the next frame on, nothing restarts. reformat: the same, with pictures of another size or shape.
model: the new one is loaded beside the old one, then they are swapped. source: let go and opened anew; viewers stay.
output: the outputs see to it, each for itself. server: the HTTP server listens anew, or other things beside the video.
"""

EFFECTS: dict[str, Effect] = {
    "source": "source",
    "source.stale_ms": "live",
    "source.repeats": "live",
    "geometry": "reformat",
    "geometry.mirror": "live",
    "model": "model",
    "mask_sync": "live",
    "exact_between": "live",
    "latency": "live",
    "flow": "live",
    "fusion": "live",
    "matte": "live",
    "background": "live",
    "privacy": "live",
    "outputs": "output",
    "web": "server",
    "reload": "live",
    "log": "live",
}
"""By the longest prefix of a key. A section stands for every key in it, except those that stand here themselves."""

DOING: dict[Effect, str] = {
    "live": "live",
    "reformat": "live, the picture's format changes",
    "model": "model swapped",
    "source": "source restarted",
    "output": "output adjusted or opened anew",
    "server": "server restarted",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One key that has another value now."""

    key: str
    effect: Effect
    done: str = ""
    """In words, where the effect does not say it all."""

    def __str__(self) -> str:
        return f"{self.key} ({self.done or DOING[self.effect]})"


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload has done. Values are not in it: some are secrets."""

    changes: tuple[Change, ...] = ()
    took_ms: float = 0.0
    """From the call to the moment that the frame loop worked with the new configuration."""

    def __str__(self) -> str:
        return ", ".join(str(change) for change in self.changes) or "nothing has changed"


def effect_of(key: str) -> Effect:
    """What a change of the key, such as `matte.quality` or `outputs[0].port`, touches."""
    prefix = key
    while prefix:
        if prefix in EFFECTS:
            return EFFECTS[prefix]
        prefix = prefix[: max(prefix.rfind("."), prefix.rfind("["), 0)]
    raise LookupError(f"{key}: nobody has said what a change of it touches (edge_seg/reload.py)")


def touches(keys: Sequence[str], *sections: str) -> bool:
    """Whether one of the keys is one of the sections, or in one."""
    return any(
        key == section or key.startswith((f"{section}.", f"{section}["))
        for key in keys
        for section in sections
    )


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted keys whose values differ, as far down as both have the same keys."""
    return list(_changed("", old.model_dump(mode="json"), new.model_dump(mode="json")))


def _changed(key: str, old: Any, new: Any) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get("type") != new.get("type") and old.keys() != new.keys():
            yield f"{key}.type"  # another thing altogether: the other keys mean something else now
            return
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _changed(f"{key}.{name}" if key else name, old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new) and _is_sections(old, new):
        for index, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _changed(f"{key}[{index}]", was, now)
    else:
        yield key


def _is_sections(*lists: list[Any]) -> bool:
    return all(isinstance(item, dict) for items in lists for item in items)


Prints = dict[str, tuple[int, int, int]]
"""Key -> inode, time of change (ns) and size of the file that it names."""


def fingerprints(config: Config) -> Prints:
    """Of the files that are read when a configuration is applied: a new picture under the old name is a change."""
    files = {"background.path": config.background.path}
    if is_path(config.model.file):
        files["model.file"] = Path(config.model.file)
    prints: Prints = {}
    for key, path in files.items():
        if path is not None and (seen := fingerprint(path)) is not None:
            prints[key] = seen
    return prints


def fingerprint(path: Path) -> tuple[int, int, int] | None:
    """None where there is no such file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def changed_files(old: Prints, new: Prints) -> list[str]:
    """Keys whose files are others than before."""
    return [key for key, print_ in new.items() if key in old and old[key] != print_]
