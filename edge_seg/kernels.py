"""The compiled kernels, where they were built, and whether they were built from what lies beside them.

A checkout that is updated without `make setup` has the new Python and the old kernels, which take other arguments or
compute something else. setup.py compiles into each a digest of its sources.
"""

from __future__ import annotations

import logging
import re
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from edge_seg.errors import StaleKernel

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent

_INCLUDE = re.compile(r'^#include "(\w+\.h)"', re.MULTILINE)


def load(name: str) -> Any:
    """The extension `edge_seg._NAME`; None where it was not built, which NumPy and OpenCV make up for, slowly.

    Raises StaleKernel where its sources are here and are not those that it was built from.
    """
    try:
        module = import_module(f"edge_seg._{name}")
    except ModuleNotFoundError:  # installed without a compiler
        return None
    except ImportError as error:
        log.warning("the slow version of %s is used: %s", name, error)
        return None
    expected = digest(name, PACKAGE)
    if expected is not None and getattr(module, "SOURCES", None) != expected:
        raise StaleKernel(
            f"{module.__file__} was built from other sources than those beside it: run `make setup`"
            " (or delete it; without it, all is much slower)"
        )
    return module


def digest(name: str, folder: Path) -> str | None:
    """Of the sources of the extension `_NAME`; None where they are not in the folder."""
    files = sources(name, folder)
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16] if files else None


def sources(name: str, folder: Path) -> list[Path]:
    """The C file of the extension `_NAME`, then the headers beside it that it includes, directly or not."""
    found: list[Path] = []
    waiting = [folder / f"_{name}.c"]
    while waiting:
        file = waiting.pop(0)
        if file not in found and file.is_file():
            found.append(file)
            waiting += [folder / header for header in _INCLUDE.findall(file.read_text("utf-8"))]
    return found
