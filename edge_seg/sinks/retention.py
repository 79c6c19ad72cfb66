"""The files of a recording: how they are called, which of them are too many, how much room is left."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DIRECTIVES = {
    "%Y": r"\d{4}",
    "%m": r"\d\d",
    "%d": r"\d\d",
    "%H": r"\d\d",
    "%M": r"\d\d",
    "%S": r"\d\d",
    "%j": r"\d{3}",
}
"""Of strftime, those that are numbers of a fixed length: a file that was made by such a pattern can be told from any
other."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of the recording."""

    path: Path
    size: int
    changed_s: float


class Naming:
    """A path with the time in its name, such as `recordings/%Y-%m-%d_%H-%M-%S.mp4`."""

    def __init__(self, pattern: Path) -> None:
        self.folder = pattern.parent
        self._pattern = pattern.name
        stem, suffix = pattern.stem, pattern.suffix
        parts = re.split(r"(%.)", stem)
        text = "".join(DIRECTIVES.get(part, re.escape(part)) for part in parts)
        self._ours = re.compile(rf"{text}(-\d+)?{re.escape(suffix)}")

    def new(self, wall_s: float) -> Path:
        """A name for a file that begins at this time (Unix), and that is not there yet."""
        first = self.folder / time.strftime(self._pattern, time.localtime(wall_s))
        path, number = first, 1
        while path.exists():  # a clock that was set back, or a restart within a second
            number += 1
            path = first.with_name(f"{first.stem}-{number}{first.suffix}")
        return path

    def pieces(self) -> list[Piece]:
        """The files that this pattern has made, oldest first."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if self._ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append(Piece(Path(entry.path), status.st_size, status.st_mtime))
        return sorted(found, key=lambda piece: (piece.changed_s, piece.path.name))


def too_many(pieces: Iterable[Piece], current: Path | None, keep_bytes: int, keep_files: int) -> list[Piece]:
    """Which of the pieces (oldest first) have to go, so that what is left, with the `current` one, is within the
    limits. 0 is no limit. The current one stays."""
    left = list(pieces)
    gone = []
    for piece in list(left):
        is_over = (keep_bytes and sum(one.size for one in left) > keep_bytes) or (
            keep_files and len(left) > keep_files
        )
        if not is_over:
            break
        if piece.path != current:
            left.remove(piece)
            gone.append(piece)
    return gone


def free_bytes(folder: Path) -> int:
    """What a user without privileges can still write there. Raises OSError."""
    return shutil.disk_usage(folder).free
