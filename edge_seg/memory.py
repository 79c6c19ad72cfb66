"""The C library's memory, in a process that starts threads for ever."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
"""Of glibc's malloc.h."""
ARENAS = 2


def limit_arenas(count: int = ARENAS) -> bool:
    """Lets threads share `count` heaps. Returns whether the C library knows how.

    glibc gives each new thread one of up to eight heaps a core, and each keeps what was freed in it: a camera that
    comes back 50 times, every time with new threads, made the daemon up to 30 MB larger; with two heaps it stays.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has only one heap
        return False
    return bool(mallopt(M_ARENA_MAX, count))
