"""Displays of the kernel's mode setting (KMS): connectors, their monitors and modes, and who owns a card."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

_RESOURCES = struct.Struct("@4Q8I")
"""struct drm_mode_card_res: pointers to ids of framebuffers, CRTCs, connectors, encoders; their counts; sizes."""
_CONNECTOR = struct.Struct("@4Q12I")
"""struct drm_mode_get_connector: pointers to encoders, modes, properties, their values; their counts; encoder, id,
type, number of the type; more."""
_MODE_BYTES = 68


def _ioctl(number: int, size: int) -> int:
    return 3 << 30 | size << 16 | ord("d") << 8 | number


_GET_RESOURCES = _ioctl(0xA0, _RESOURCES.size)
_GET_CONNECTOR = _ioctl(0xA7, _CONNECTOR.size)
_SET_MASTER = ord("d") << 8 | 0x1E

TYPES = (
    "Unknown", "VGA", "DVI-I", "DVI-D", "DVI-A", "Composite", "SVIDEO", "LVDS", "Component", "DIN", "DP", "HDMI-A",
    "HDMI-B", "TV", "eDP", "Virtual", "DSI", "DPI", "Writeback", "SPI", "USB",
)  # fmt: skip
"""The kernel's names of connectors, by their number."""


@dataclass(frozen=True, slots=True)
class Connector:
    """A socket for a monitor, as sysfs shows it."""

    card: str
    """card0, card1, ..."""
    name: str
    """HDMI-A-1, DP-1, DSI-1, ..."""
    status: str
    """connected, disconnected, unknown."""
    enabled: bool
    modes: tuple[tuple[int, int], ...]
    """Sizes in pixels, the monitor's preferred one first. Interlaced ones are left out."""
    driver: str = "unknown"

    @property
    def is_connected(self) -> bool:
        # Of a panel that cannot say whether it is there, the kernel does not know.
        return self.status == "connected" or (self.status == "unknown" and bool(self.modes))


def connectors(root: Path = Path("/")) -> list[Connector]:
    """Every connector of every card, in the order of their names."""
    folder = root / "sys/class/drm"
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    found = []
    for entry in entries:
        match = re.fullmatch(r"(card\d+)-(.+)", entry.name)
        if match is None:
            continue
        sizes = re.findall(r"^(\d+)x(\d+)$", _text(entry / "modes"), re.MULTILINE)
        found.append(
            Connector(
                card=match[1],
                name=match[2],
                status=_text(entry / "status") or "unknown",
                enabled=_text(entry / "enabled") == "enabled",
                modes=tuple(dict.fromkeys((int(width), int(height)) for width, height in sizes)),
                driver=_driver(folder / match[1]),
            )
        )
    return found


def status(connector: Connector, root: Path = Path("/")) -> str:
    """Whether a monitor is plugged in now: connected, disconnected, unknown; empty when the card is gone."""
    return _text(root / "sys/class/drm" / f"{connector.card}-{connector.name}" / "status")


def open_card(connector: Connector, root: Path = Path("/")) -> int:
    """A file descriptor for the card. Who opens one that nobody owns, owns it. Raises OSError."""
    return os.open(root / "dev/dri" / connector.card, os.O_RDWR | os.O_CLOEXEC)


def owns_display(descriptor: int) -> bool:
    """Whether the card obeys this descriptor, and not a desktop or another program's."""
    try:
        fcntl.ioctl(descriptor, _SET_MASTER)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EBUSY, errno.EPERM, errno.EINVAL):
            return False
        raise
    return True


def connector_id(descriptor: int, name: str) -> int:
    """The number by which the card's driver knows a connector. Raises OSError, LookupError."""
    counts = _RESOURCES.unpack(fcntl.ioctl(descriptor, _GET_RESOURCES, bytes(_RESOURCES.size)))
    identifiers = (ctypes.c_uint32 * max(1, counts[6]))()
    request = _RESOURCES.pack(0, 0, ctypes.addressof(identifiers), 0, 0, 0, counts[6], 0, 0, 0, 0, 0)
    fcntl.ioctl(descriptor, _GET_RESOURCES, request)
    # With room for one mode the driver tells what it knows; with none it would ask the monitor, which takes long.
    mode = ctypes.create_string_buffer(_MODE_BYTES)
    for identifier in identifiers[: counts[6]]:
        question = _CONNECTOR.pack(
            0, ctypes.addressof(mode), 0, 0, 1, 0, 0, 0, identifier, 0, 0, 0, 0, 0, 0, 0
        )
        answer = _CONNECTOR.unpack(fcntl.ioctl(descriptor, _GET_CONNECTOR, question))
        kind, number = answer[9], answer[10]
        if kind < len(TYPES) and f"{TYPES[kind]}-{number}" == name:
            return int(identifier)
    raise LookupError(name)


def _driver(card: Path) -> str:
    try:
        return (card / "device/driver").resolve(strict=True).name
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return "unknown"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
