"""Passwords: in a file or in the environment, never in the configuration, a log or what `check` prints."""

from __future__ import annotations

import os
from pathlib import Path

from edge_seg.errors import ConfigError


def read(key: str, file: str | None, variable: str | None) -> str:
    """The first line of `file`, else the value of the environment variable `variable`, else nothing.

    Read whenever it is needed: it may have changed. `key` is the section of the configuration that names them, for
    the errors. Raises ConfigError.
    """
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{key}.password_file: {file}: is not UTF-8 text") from error
        except OSError as error:
            raise ConfigError(f"{key}.password_file: {file}: cannot be read: {error.strerror}") from error
        return lines[0] if lines else ""
    if variable is not None:
        value = os.environ.get(variable)
        if value is None:
            raise ConfigError(f"{key}.password_env: there is no environment variable {variable}")
        return value
    return ""
