"""Cameras: by libcamera (CSI), by the kernel (V4L2, with their formats), on a Jetson by nvargus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edge_seg.errors import ConfigError, EdgeSegError
from edge_seg.probe import Report, read_text
from edge_seg.sources import V4l2Settings, video_node


def find(root: Path) -> Report:
    """cameras: kind, name, the `source:` that opens it, its formats, what is wrong; missing."""
    missing: list[dict[str, str]] = []
    cameras = [*_csi(root, missing), *_argus(root), *_v4l2(root)]
    return {"cameras": cameras, "missing": missing}


def _csi(root: Path, missing: list[dict[str, str]]) -> list[Report]:
    from edge_seg.sources import csi

    try:
        picamera2, _ = csi.load()
        found = picamera2.Picamera2.global_camera_info()
    except ConfigError as error:
        if "raspberry pi" in read_text(root / "proc/device-tree/model").lower():
            missing.append(
                {"what": "picamera2", "why": str(error), "command": f"sudo apt install {csi.PACKAGE}"}
            )
        return []
    except (RuntimeError, OSError) as error:
        return [{"kind": "csi", "name": "libcamera", "problem": str(error)}]
    return [
        {
            "kind": "csi",
            "name": str(camera.get("Model", "unknown")),
            "source": {"type": "csi", "camera": number},
        }
        for number, camera in enumerate(found)
        if "/usb" not in str(camera.get("Id", ""))
    ]


def _argus(root: Path) -> list[Report]:
    if not (root / "etc/nv_tegra_release").exists():
        return []
    return [{"kind": "argus", "name": "Jetson CSI camera", "source": {"type": "argus", "camera": 0}}]


def _v4l2(root: Path) -> list[Report]:
    """Every node of the kernel's; those that are no cameras only say so."""
    names: dict[str, str] = {}
    by_id = root / "dev/v4l/by-id"
    if by_id.is_dir():
        for link in sorted(by_id.iterdir()):
            names.setdefault(link.resolve().name, f"/dev/v4l/by-id/{link.name}")
    nodes = {entry.name for entry in _entries(root / "sys/class/video4linux")}
    nodes |= {entry.name for entry in _entries(root / "dev")}
    numbered = sorted((int(match[1]), name) for name in nodes if (match := re.fullmatch(r"video(\d+)", name)))
    return [_node(root, name, names.get(name, f"/dev/{name}")) for _, name in numbered]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _node(root: Path, name: str, device: str) -> Report:
    label = read_text(root / "sys/class/video4linux" / name / "name") or name
    camera: Report = {
        "kind": "v4l2",
        "name": label,
        "source": {"type": "v4l2", "device": device},
        "node": f"/dev/{name}",
    }
    try:
        node = video_node.query(root / "dev" / name)
    except OSError as error:
        return {**camera, "problem": _advice(error)}
    camera.update(name=node.card or label, driver=node.driver)
    if node.is_loopback:
        output = {"type": "v4l2", "device": device}
        return {
            "kind": "loopback",
            "output": output,
            **{key: camera[key] for key in ("name", "node", "driver")},
        }
    if not node.is_camera:
        return {"kind": "other", **{key: camera[key] for key in ("name", "node", "driver")}}
    try:
        camera["formats"] = _formats(str(root / "dev" / name))
    except EdgeSegError as error:
        camera["problem"] = str(error)
    return camera


def _formats(device: str) -> list[Report]:
    """One line a format and size, with the rates that go with it."""
    from edge_seg.sources.v4l2 import V4l2Source

    sizes: dict[tuple[str, int, int], list[float]] = {}
    for mode in V4l2Source(V4l2Settings(device=device)).modes():
        sizes.setdefault((mode.format, mode.width, mode.height), []).append(round(float(mode.fps), 2))
    return [
        {"format": kind, "width": width, "height": height, "fps": sorted(set(rates), reverse=True)}
        for (kind, width, height), rates in sizes.items()
    ]


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission: run `sudo usermod -aG video $USER` and log in again"
    return f"cannot be opened: {error.strerror or error}"


def camera_line(camera: dict[str, Any]) -> str:
    """For people: the largest size first."""
    formats = camera.get("formats", [])
    best: dict[str, Report] = {}
    for entry in formats:
        known = best.get(entry["format"])
        if known is None or entry["width"] * entry["height"] > known["width"] * known["height"]:
            best[entry["format"]] = entry
    shown = ", ".join(
        f"{kind} up to {e['width']}x{e['height']} at {e['fps'][0]:g}" for kind, e in best.items() if e["fps"]
    )
    return camera.get("problem", "") or shown
