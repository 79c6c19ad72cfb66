"""Passwords and tokens: in a file or in the environment, never in the configuration, a log or what `check` prints."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from edge_seg.errors import ConfigError


def read(section: str, file: str | Path | None, variable: str | None, noun: str = "password") -> str:
    """The first line of `file`, else the value of the environment variable `variable`, else nothing.

    Read whenever it is needed: it may have changed. The `section` of the configuration names them in its keys
    `NOUN_file` and `NOUN_env`, for the errors. Raises ConfigError.
    """
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{section}.{noun}_file: {file}: is not UTF-8 text") from error
        except OSError as error:
            raise ConfigError(f"{section}.{noun}_file: {file}: cannot be read: {error.strerror}") from error
        return lines[0] if lines else ""
    if variable is not None:
        value = os.environ.get(variable)
        if value is None:
            raise ConfigError(f"{section}.{noun}_env: there is no environment variable {variable}")
        return value
    return ""


def public_url(url: str) -> str:
    """The URL for logs. Some cameras take passwords in the query; others have a stream there that is nobody else's."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?..." if parts.query else "")
