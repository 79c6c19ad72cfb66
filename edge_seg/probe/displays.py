"""Displays: the connectors of the kernel's mode setting (KMS), from sysfs."""

from __future__ import annotations

import re
from pathlib import Path

from edge_seg.probe import Report, read_text


def find(root: Path) -> Report:
    """displays: card, driver, connector, status, modes (the preferred first)."""
    folder = root / "sys/class/drm"
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        entries = []
    displays = []
    for entry in entries:
        match = re.fullmatch(r"(card\d+)-(.+)", entry.name)
        if match is None:
            continue
        modes = list(dict.fromkeys(read_text(entry / "modes").split()))
        displays.append(
            {
                "card": match[1],
                "driver": _driver(folder / match[1]),
                "connector": match[2],
                "status": read_text(entry / "status") or "unknown",
                "enabled": read_text(entry / "enabled") == "enabled",
                "modes": modes,
            }
        )
    return {"displays": displays}


def _driver(card: Path) -> str:
    try:
        return (card / "device/driver").resolve(strict=True).name
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return "unknown"
