"""The compiled kernels, where they were built, and whether they were built from what lies beside them.

A checkout that is updated without `make setup` has the new Python and the old kernels, which take other arguments or
compute something else. setup.py compiles into each a digest of its sources.
"""

from __future__ import annotations

import logging
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from edge_seg.errors import StaleKernel

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent


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
    sources = digest(name, PACKAGE)
    if sources is not None and getattr(module, "SOURCES", None) != sources:
        raise StaleKernel(
            f"{module.__file__} was built from other sources than those beside it: run `make setup`"
            " (or delete it; without it, all is much slower)"
        )
    return module


def digest(name: str, folder: Path) -> str | None:
    """Of the sources of the extension `_NAME`; None where they are not in the folder. setup.py computes the same."""
    source = folder / f"_{name}.c"
    if not source.is_file():
        return None
    found = sha256(source.read_bytes())
    for header in sorted(folder.glob("_*.h")):
        found.update(header.read_bytes())
    return found.hexdigest()[:16]
