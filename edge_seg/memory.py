"""The C library's memory, in a process that starts threads for ever."""

from __future__ import annotations

import ctypes

M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1
"""Of glibc's malloc.h."""
ARENAS = 2
KEPT_BYTES = 16 << 20
MAPPED_BYTES = 8 << 20
"""Larger blocks are mapped and unmapped one by one: pictures from 4K on, models."""


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


def keep_freed(count: int = KEPT_BYTES, mapped: int = MAPPED_BYTES) -> bool:
    """Lets the C library keep up to `count` bytes at the end of each heap, and take blocks of less than `mapped` bytes
    from there. Returns whether it knows how.

    Every frame takes and frees about a megabyte. By glibc's own measure that goes back to the kernel each time, or not,
    depending on what was freed before; where it does, flow and matte take twice as long, for new pages are cleared.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, mapped) and mallopt(M_TRIM_THRESHOLD, count))
