"""Pictures that several readers share: copied once, in memory that is used again when the last of them is done."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_seg import gstreamer
from edge_seg.types import I420, U8, Matrix


@dataclass(frozen=True, eq=False)
class SharedPicture(I420):
    """A picture of a pool's. Whoever refers to it may read it; nobody may write to it."""

    memory: Any = None
    """The Gst.Buffer that it lies in, None without GStreamer. `gstreamer.to_buffer` makes others of it without a
    copy."""


class PicturePool:
    """Copies of pictures of one size, without an allocation once there are as many as are in use at a time.

    For one thread; the copies may be let go of in any.
    """

    def __init__(self, width: int, height: int, matrix: Matrix) -> None:
        self._geometry = (width, height, matrix)
        self._slots: list[_Slot] = []

    def __len__(self) -> int:
        """Pictures that there is memory for."""
        return len(self._slots)

    def fits(self, picture: I420) -> bool:
        """Whether the picture has the size that this pool is for."""
        return (picture.width, picture.height, picture.matrix) == self._geometry

    def copy(self, picture: I420) -> SharedPicture:
        """A copy of the picture, which must fit."""
        shared = self._free_slot().lend()
        if picture.buffer.size == shared.buffer.size and picture.y.strides == shared.y.strides:
            np.copyto(shared.buffer, picture.buffer)
        else:
            for target, plane in zip(shared.planes, picture.planes, strict=True):
                np.copyto(target, plane)
        return shared

    def _free_slot(self) -> _Slot:
        for slot in self._slots:
            if slot.free:
                return slot
        self._slots.append(_Slot(*self._geometry))
        return self._slots[-1]


class _Slot:
    """Memory for one picture."""

    def __init__(self, width: int, height: int, matrix: Matrix) -> None:
        size = I420.buffer_size(width, height)
        array, self._memory = _allocate(size)
        self._picture = I420.wrap(array, width, height, matrix)
        self._lent: weakref.ref[SharedPicture] | None = None

    @property
    def free(self) -> bool:
        if self._lent is not None and self._lent() is not None:
            return False
        # False as long as a buffer of an encoder's refers to the memory, too.
        return self._memory is None or bool(self._memory.is_all_memory_writable())

    def lend(self) -> SharedPicture:
        own = self._picture
        shared = SharedPicture(own.buffer, own.y, own.u, own.v, own.matrix, self._memory)
        self._lent = weakref.ref(shared)
        return shared


def _allocate(size: int) -> tuple[U8, Any]:
    """An array of `size` bytes and the Gst.Buffer that it lies in; a plain one and None without GStreamer."""
    try:
        gst = gstreamer.load()
    except gstreamer.GStreamerMissing:
        return np.empty(size, np.uint8), None
    buffer = gst.Buffer.new_allocate(None, size, None)
    # System memory stays where it is: mapping it once tells its address. A mapping that was kept would lock the
    # memory against sharing.
    with buffer.map(gst.MapFlags.READ) as mapped:
        address = np.frombuffer(mapped.data, np.uint8).ctypes.data
    memory = (ctypes.c_uint8 * size).from_address(address)
    memory.owner = buffer  # type: ignore[attr-defined]  # lives as long as the array does
    return np.frombuffer(memoryview(memory), np.uint8), buffer
