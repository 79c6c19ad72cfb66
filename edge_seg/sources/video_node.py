"""What the kernel says of a /dev/video node, without starting anything."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_CAPABILITY = struct.Struct("=16s32s32sIII12x")
"""struct v4l2_capability of linux/videodev2.h: driver, card, bus_info, version, capabilities, device_caps."""
_QUERYCAP = 2 << 30 | _CAPABILITY.size << 16 | ord("V") << 8 | 0
_CAPTURE = 0x0000_0001 | 0x0000_1000
_OUTPUT = 0x0000_0002 | 0x0000_2000
_OUTPUT_TOO = 0x0000_0002 | 0x0000_2000 | 0x0000_4000 | 0x0000_8000
_STREAMING = 0x0400_0000
_DEVICE_CAPS = 0x8000_0000

LOOPBACK = "v4l2 loopback"
"""The driver of virtual webcams: what comes out of one is what some program puts in, perhaps we."""
NO_CAMERAS = ("bcm2835-codec", "bcm2835-isp", "pispbe", "rpi-hevc-dec", "unicam", "rp1-cfe")
"""Drivers of a Raspberry Pi whose nodes look like cameras and are parts of one: libcamera's business."""


@dataclass(frozen=True, slots=True)
class VideoNode:
    """Who a node belongs to."""

    path: Path
    driver: str
    card: str
    capabilities: int

    @property
    def is_camera(self) -> bool:
        """Whether pictures come out of it and none go in."""
        flags = self.capabilities
        streams = bool(flags & _CAPTURE) and bool(flags & _STREAMING) and not flags & _OUTPUT_TOO
        return streams and self.driver not in NO_CAMERAS

    @property
    def is_loopback(self) -> bool:
        """Whether it is a virtual webcam."""
        return self.driver == LOOPBACK

    @property
    def takes_pictures(self) -> bool:
        """Whether pictures can be put into it. One of v4l2loopback with exclusive_caps=1 only says so while nobody
        does."""
        return bool(self.capabilities & _OUTPUT) or self.is_loopback


def query(path: Path) -> VideoNode:
    """Asks the driver. Raises OSError, also where the node is no video device."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(descriptor, _QUERYCAP, bytes(_CAPABILITY.size))
    finally:
        os.close(descriptor)
    return parse(path, answer)


def parse(path: Path, answer: bytes) -> VideoNode:
    """From the bytes of struct v4l2_capability."""
    driver, card, _, _, capabilities, device = _CAPABILITY.unpack(answer)
    # Of a device with several nodes `capabilities` is the sum, `device` is this node's.
    own = device if capabilities & _DEVICE_CAPS else capabilities
    return VideoNode(path, _text(driver), _text(card), own)


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace")
