"""A file that appears under its name when it is whole, and never before."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from edge_seg.errors import ConfigError, EdgeSegError


class Target:
    """Where a new file is written, and how it gets its name. Use as a context manager.

    It grows beside its final place as NAME.partial. Left without `finish`, that is removed; after a power cut or a
    SIGKILL it stays, and the next try begins it anew.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Raises ConfigError when nothing can be written there, or something is there already."""
        # A link stays a link: what it points to is replaced.
        self._path = path.resolve()
        self._shown = path
        self._overwrite = overwrite
        self.partial = self._path.with_name(f"{self._path.name}.partial")
        if not self._path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {self._path.parent}")
        if self._path.exists() and not self._path.is_file():
            raise ConfigError(f"{path}: is not a file; name the file to write")
        self._refuse_existing()

    def __enter__(self) -> Target:
        try:
            self._file = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ConfigError(f"{self._shown}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ConfigError(f"{self._shown}: is being written by another process") from error
        self._is_finished = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_finished:
            self.partial.unlink(missing_ok=True)
        os.close(self._file)

    def write(self, content: bytes) -> None:
        """The whole file at once. Raises EdgeSegError."""
        try:
            self.partial.write_bytes(content)
        except OSError as error:
            raise EdgeSegError(f"{self._shown}: cannot be written: {error.strerror}") from error
        self.finish()

    def finish(self) -> None:
        """Gives what was written its name, after it has reached the disk. Raises EdgeSegError."""
        try:
            os.fsync(self._file)
            self._refuse_existing()
            self.partial.replace(self._path)
            self._is_finished = True
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise EdgeSegError(f"{self._shown}: cannot be written: {error.strerror}") from error

    def _refuse_existing(self) -> None:
        if self._path.exists() and not self._overwrite:
            raise ConfigError(f"{self._shown}: is there already; --force replaces it")
