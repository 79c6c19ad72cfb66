"""The first camera that works, when the configuration names none."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

from edge_seg.errors import ConfigError, SourceLost
from edge_seg.geometry import Geometry
from edge_seg.sources import video_node
from edge_seg.sources.base import (
    ArgusSettings,
    AutoSettings,
    CsiSettings,
    PlacingSource,
    Source,
    SourceFormat,
    SourceSettings,
    V4l2Settings,
)
from edge_seg.types import Frame, Matrix

log = logging.getLogger(__name__)

TEGRA = Path("/etc/nv_tegra_release")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A camera that may work."""

    name: str
    settings: SourceSettings


class AutoSource:
    """Tries the cameras of this machine in turn; afterwards it is the one that worked."""

    name = "auto"
    live = True

    def __init__(
        self,
        settings: AutoSettings,
        make: Callable[[SourceSettings], Source],
        find: Callable[[AutoSettings], list[Candidate]] | None = None,
    ) -> None:
        self._make = make
        self._settings = settings
        self._find = find or candidates
        self._source: Source | None = None
        self._closed = False
        self._geometry: Geometry | None = None

    @property
    def geometry(self) -> Geometry | None:
        """Of the source that worked; None: as `make` made it."""
        return self._geometry

    @geometry.setter
    def geometry(self, geometry: Geometry) -> None:
        self._geometry = geometry
        if self._source is not None:
            cast(PlacingSource, self._source).geometry = geometry

    @property
    def format(self) -> SourceFormat:
        source = self._source
        if source is None:
            return SourceFormat(0, 0, Fraction(0), Matrix.BT709)
        return source.format

    def open(self) -> None:
        refused = []
        for candidate in self._find(self._settings):
            if self._closed:
                raise SourceLost("auto is closed")
            source = self._make(candidate.settings)
            self._source = source
            try:
                source.open()
            except (SourceLost, ConfigError) as error:
                refused.append(str(error).replace("\n", " "))
                source.close()
                continue
            self.name = source.name
            log.info("source: %s, the first camera that works; `source:` names another one", candidate.name)
            return
        self._source = None
        raise SourceLost(
            "no camera works here"
            + (f" ({'; '.join(refused)})" if refused else ": none is plugged in")
            + "; `edge-seg probe` says more"
        )

    def read(self, timeout_ns: int) -> Frame | None:
        source = self._source
        if source is None:
            raise SourceLost(f"{self.name} is closed")
        return source.read(timeout_ns)

    def close(self) -> None:
        self._closed = True
        source, self._source = self._source, None
        if source is not None:
            source.close()


def candidates(settings: AutoSettings, dev: Path = Path("/dev"), tegra: Path = TEGRA) -> list[Candidate]:
    """The cameras that this machine seems to have: CSI first, then V4L2 by the name that stays the same."""
    size = {"width": settings.width, "height": settings.height, "fps": settings.fps}
    timing = {"stale_ms": settings.stale_ms, "repeats": settings.repeats}
    found: list[Candidate] = []
    if tegra.exists():
        found.append(Candidate("Jetson CSI camera 0", ArgusSettings(**size, **timing)))  # type: ignore[arg-type]
    else:
        for number in range(_csi_cameras()):
            csi = CsiSettings(camera=number, **size, **timing)  # type: ignore[arg-type]
            found.append(Candidate(f"CSI camera {number}", csi))
    for path in v4l2_nodes(dev):
        if not _is_camera(path):
            continue
        v4l2 = V4l2Settings(device=str(path), **size, **timing)  # type: ignore[arg-type]
        found.append(Candidate(str(path), v4l2))
    return found


def v4l2_nodes(dev: Path) -> Iterator[Path]:
    """Each video node once, by its name below v4l/by-id where it has one."""
    named: dict[Path, Path] = {}
    by_id = dev / "v4l" / "by-id"
    if by_id.is_dir():
        for link in sorted(by_id.iterdir()):
            named.setdefault(link.resolve(), link)
    nodes = [path for path in dev.glob("video*") if re.fullmatch(r"video\d+", path.name)]
    for node in sorted(nodes, key=lambda path: int(path.name.removeprefix("video"))):
        yield named.get(node.resolve(), node)


def _is_camera(path: Path) -> bool:
    try:
        node = video_node.query(path)
        # A virtual webcam may show what this very program puts into it.
        return node.is_camera and not node.is_loopback
    except OSError as error:
        # One without permission stays: opening it says what to do about that.
        return error.errno in (errno.EACCES, errno.EPERM, errno.EBUSY)


def _csi_cameras() -> int:
    """How many cameras libcamera has that are no USB cameras: V4L2 is the shorter way to those."""
    from edge_seg.sources import csi

    try:
        picamera2, _ = csi.load()
    except ConfigError:
        return 0
    try:
        cameras = picamera2.Picamera2.global_camera_info()
    except (RuntimeError, OSError) as error:
        log.debug("libcamera does not list its cameras: %s", error)
        return 0
    return sum("/usb" not in str(camera.get("Id", "")) for camera in cameras)
