"""What this machine has for us: runtimes, cameras, encoders, displays, and what is missing.

Each section runs in a child process of its own: drivers and foreign libraries crash and hang, and what one does must
not hide what the others found.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_seg import __version__

SECTIONS = ("runtimes", "cameras", "encoders", "displays")
TIMEOUT_S = 60.0

Report = dict[str, Any]
"""What `edge-seg probe --json` prints."""


def run(root: Path = Path("/"), timeout_s: float = TIMEOUT_S) -> Report:
    """The whole report. `root` is where dev, etc, proc and sys are looked for."""
    children = {section: _start(section, root) for section in SECTIONS}
    report: Report = {"edge_seg": __version__, "machine": machine(root)}
    missing: list[dict[str, str]] = []
    problems: dict[str, str] = {}
    for section, child in children.items():
        found = child if isinstance(child, str) else _collect(child, timeout_s)
        if isinstance(found, str):
            problems[section] = found
            found = {}
        missing += found.pop("missing", [])
        report[section] = found.pop(section, [])
        report.update(found)
    report.setdefault("delegates", [])
    report["missing"] = missing
    report["problems"] = problems
    return report


def machine(root: Path) -> dict[str, str]:
    """Board, distribution, kernel, Python."""
    model = read_text(root / "proc/device-tree/model") or read_text(root / "sys/class/dmi/id/product_name")
    system = {}
    for line in read_text(root / "etc/os-release").splitlines():
        key, _, value = line.partition("=")
        system[key] = value.strip('"')
    return {
        "board": model or "unknown",
        "system": system.get("PRETTY_NAME", "unknown"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def read_text(path: Path) -> str:
    """A small file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _start(section: str, root: Path) -> subprocess.Popen[bytes] | str:
    package_root = str(Path(__file__).resolve().parent.parent.parent)
    path = os.pathsep.join(part for part in (package_root, os.environ.get("PYTHONPATH", "")) if part)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "edge_seg.probe", section, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError as error:
        return f"cannot be looked at: {error}"


def _collect(child: subprocess.Popen[bytes], timeout_s: float) -> Report | str:
    """What a child found, or in one line what became of it."""
    try:
        said, complaint = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return f"no answer within {timeout_s:.0f} s: a driver hangs"
    if child.returncode < 0:
        return f"crashed ({signal.Signals(-child.returncode).name})"
    try:
        found: Report = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        lines = [line for line in complaint.decode(errors="replace").splitlines() if line.strip()]
        return f"failed (status {child.returncode}): {lines[-1] if lines else 'no message'}"
    return found
