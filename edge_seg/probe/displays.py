"""Displays: the connectors of the kernel's mode setting (KMS), from sysfs."""

from __future__ import annotations

from pathlib import Path

from edge_seg.probe import Report
from edge_seg.sinks import kms


def find(root: Path) -> Report:
    """displays: card, driver, connector, status, modes (the preferred first), the `output` that shows on it."""
    return {
        "displays": [
            {
                "card": connector.card,
                "driver": connector.driver,
                "connector": connector.name,
                "status": connector.status,
                "enabled": connector.enabled,
                "modes": [f"{width}x{height}" for width, height in connector.modes],
                "output": {"type": "hdmi", "connector": connector.name},
            }
            for connector in kms.connectors(root)
        ]
    }
