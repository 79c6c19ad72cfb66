"""Cameras on the CSI connectors of a Raspberry Pi, by libcamera and picamera2.

picamera2 runs its camera in a thread of its own and calls back with every picture. It is copied there, once,
and the buffer given back at once: the driver has few of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from typing import Any

import numpy as np

from edge_seg.errors import ConfigError, SourceLost
from edge_seg.geometry import WHOLE, Geometry, cropped, output_size
from edge_seg.sources.base import CsiSettings, SourceFormat
from edge_seg.sources.bounded import bounded
from edge_seg.sources.csi_buffers import (
    FORMATS,
    Stream,
    capture_time,
    colours,
    copy_picture,
    same_shape,
    stream_of,
)
from edge_seg.types import I420, Frame, Matrix

log = logging.getLogger(__name__)

PACKAGE = "python3-picamera2"
LORES_PX = 256
"""Shorter side (longer side of pictures as wide as 3:2) of the small picture: what the shipped models look at."""
WIDE = 1.5
FIRST_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
AWB_MODES = {
    "auto": "Auto",
    "tungsten": "Tungsten",
    "fluorescent": "Fluorescent",
    "indoor": "Indoor",
    "daylight": "Daylight",
    "cloudy": "Cloudy",
}


class CsiSource:
    """One camera, its full picture and the small one that its image processor makes beside it."""

    live = True

    def __init__(
        self,
        settings: CsiSettings,
        clock: Callable[[], int] = time.monotonic_ns,
        boot_clock: Callable[[], int] | None = None,
    ) -> None:
        self.name = f"csi camera {settings.camera}"
        self._settings = settings
        self._clock = clock
        self._boot_clock = boot_clock or _boottime_ns
        self._changed = threading.Condition()
        self._camera: Any = None
        self._mapped: Any = None
        self._geometry = WHOLE
        self._configured: list[Stream] = []
        """What libcamera delivers."""
        self._streams: list[Stream] = []
        """What is taken of it."""
        self._matrix = Matrix.BT709
        self._format: SourceFormat | None = None
        self._full_range = False
        self._newest: Frame | None = None
        self._seq = 0
        self._failure: SourceLost | None = None

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @geometry.setter
    def geometry(self, geometry: Geometry) -> None:
        with self._changed:
            self._geometry = geometry
            self._newest = None  # it shows the view of before
            if self._configured:
                self._place()

    @property
    def format(self) -> SourceFormat:
        if self._format is None:
            raise SourceLost(f"{self.name} is not open")
        return self._format

    def open(self) -> None:
        picamera2, libcamera = load()
        self._mapped = picamera2.MappedArray
        self._newest, self._failure, self._seq = None, None, 0
        try:
            self._camera = camera = picamera2.Picamera2(
                self._settings.camera, tuning=self._settings.tuning_file
            )
            camera.configure(self._configuration(camera, libcamera))
            self._read_back(camera.camera_config)
            camera.post_callback = lambda request: self._take(camera, request)
            camera.start()
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._failure, FIRST_TIMEOUT_S)
                if self._newest is None:
                    raise self._failure or SourceLost(f"{self.name}: no picture within {FIRST_TIMEOUT_S:g} s")
        except (RuntimeError, IndexError, OSError, ValueError) as error:
            self.close()
            raise SourceLost(f"{self.name}: {_reason(error)}") from error
        except BaseException:
            self.close()
            raise
        log.info(
            "%s: %s", self.name, ", ".join(f"{s.name} {s.format} {s.width}x{s.height}" for s in self._streams)
        )

    def read(self, timeout_ns: int) -> Frame | None:
        with self._changed:
            if self._camera is None:
                raise SourceLost(f"{self.name} is closed")
            self._changed.wait_for(
                lambda: self._newest or self._failure or self._camera is None, timeout_ns / 1e9
            )
            if self._failure is not None:
                raise self._failure
            frame, self._newest = self._newest, None
            return frame

    def close(self) -> None:
        with self._changed:
            camera, self._camera = self._camera, None
            self._changed.notify_all()
        if camera is None:
            return
        if not bounded(lambda: _end(camera), CLOSE_TIMEOUT_S):
            log.warning("%s: libcamera does not let go of the camera; it is left behind", self.name)

    def _configuration(self, camera: Any, libcamera: Any) -> Any:
        """What is asked for. What comes of it is in camera.camera_config after configure()."""
        wanted = self._settings
        size = (wanted.width & ~1, wanted.height & ~1)
        small = lores_size(*size) if wanted.lores else None
        return camera.create_video_configuration(
            main={"format": "YUV420", "size": size},
            lores=None if small is None else {"format": "YUV420", "size": small},
            raw=None,
            transform=libcamera.Transform(hflip=wanted.hflip, vflip=wanted.vflip),
            controls=controls(wanted, camera.camera_controls, libcamera.controls),
            display=None,
            encode=None,
        )

    def _read_back(self, config: Any) -> None:
        """Takes what was configured for what it is: a request for YUV420 has come out as BGR888 before."""
        main = stream_of("main", config["main"])
        streams = [main]
        if main.format not in FORMATS:
            raise SourceLost(f"{self.name}: delivers {main.format}, expected {', '.join(FORMATS)}")
        if main.format != "YUV420":
            log.warning("%s: delivers %s instead of YUV420; converting costs time", self.name, main.format)
        if config.get("lores") is not None:
            small = stream_of("lores", config["lores"])
            if small.format == "YUV420" and same_shape(small, main):
                streams.append(small)
            else:
                log.warning(
                    "%s: its small picture is %s %dx%d, which cannot be used: scaling on the CPU",
                    self.name, small.format, small.width, small.height,
                )  # fmt: skip
        self._configured = streams
        self._matrix, self._full_range = colours(config.get("colour_space"), main)
        self._place()

    def _place(self) -> None:
        """What the geometry makes of what is delivered."""
        main = self._configured[0]
        # The small one, cropped, would not lie over the full one to the pixel.
        self._streams = [main] if cropped(self._geometry) else self._configured
        self._format = SourceFormat(
            *output_size(main.width, main.height, self._geometry),
            Fraction(self._settings.fps).limit_denominator(1001),
            self._matrix,
        )

    def _take(self, camera: Any, request: Any) -> None:
        """Called by picamera2 with each picture, in its thread; the buffer goes back when this returns."""
        if camera is not self._camera:
            return
        arrival_ns = self._clock()
        seq, self._seq = self._seq, self._seq + 1
        with self._changed:
            geometry, streams = self._geometry, self._streams
        try:
            main, *small = (self._copy(request, stream, geometry) for stream in streams)
            stamp = request.get_metadata().get("SensorTimestamp")
        except (SourceLost, RuntimeError, OSError, ValueError, BufferError) as error:
            with self._changed:
                self._failure = (
                    error if isinstance(error, SourceLost) else SourceLost(f"{self.name}: {error}")
                )
                self._changed.notify_all()
            return
        captured_ns = capture_time(stamp, arrival_ns, self._boot_clock())
        frame = Frame(main, seq, captured_ns, lores=small[0] if small else None)
        with self._changed:
            if geometry is self._geometry:
                self._newest = frame
                self._changed.notify_all()

    def _copy(self, request: Any, stream: Stream, geometry: Geometry) -> I420:
        with self._mapped(request, stream.name, reshape=False) as mapped:
            # No name here for the memory: while one refers to it, the real MappedArray cannot unmap it.
            return copy_picture(
                np.asarray(mapped.array).reshape(-1), stream, self._matrix, self._full_range, geometry
            )


def _end(camera: Any) -> None:
    camera.close()
    # Not before: picamera2's thread looks whether there is a callback, and then calls what it finds. And not never:
    # it refers to the camera, which would keep its buffers until the next collection.
    camera.post_callback = None


def load() -> tuple[Any, Any]:
    """The modules picamera2 and libcamera. Raises ConfigError where they are not installed."""
    try:
        return import_module("picamera2"), import_module("libcamera")
    except (ImportError, OSError, RuntimeError, ValueError, AttributeError) as error:
        # ValueError: apt's simplejpeg with a NumPy 2 in the virtual environment ("numpy.dtype size changed").
        raise ConfigError(
            f"source.type: csi needs picamera2, which cannot be loaded ({error}): run `sudo apt install {PACKAGE}`, "
            "with a virtual environment made with --system-site-packages and, on Bookworm, NumPy below 2"
        ) from error


def lores_size(width: int, height: int) -> tuple[int, int] | None:
    """The small picture beside one of this size: the same shape, even, as large as the shipped models need.
    None where the picture itself is not larger.

    The same shape, because on a Raspberry Pi 5 another shape would be cut out of another part of the sensor.
    """
    scale = LORES_PX / (width if width >= WIDE * height else min(width, height))
    if scale >= 1:
        return None
    return 2 * -(-round(width * scale) // 2), 2 * -(-round(height * scale) // 2)


def controls(settings: CsiSettings, known: Any, names: Any) -> dict[str, Any]:
    """The settings as libcamera's controls. Those that this camera does not know are left out, with a warning:
    a lens that cannot move, or a test camera without exposure."""
    frame_us = round(1e6 / settings.fps)
    wanted: dict[str, Any] = {"FrameDurationLimits": (frame_us, frame_us)}
    if settings.exposure_us is not None:
        wanted["ExposureTime"] = settings.exposure_us
    if settings.gain is not None:
        wanted["AnalogueGain"] = settings.gain
    if settings.awb != "auto":
        wanted["AwbMode"] = getattr(names.AwbModeEnum, AWB_MODES[settings.awb])
    if settings.focus == "continuous":
        wanted["AfMode"] = names.AfModeEnum.Continuous
    if settings.focus == "manual":
        wanted["AfMode"] = names.AfModeEnum.Manual
        wanted["LensPosition"] = settings.lens_dioptres
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        log.warning("csi camera %d has no %s", settings.camera, ", ".join(unknown))
    return {name: value for name, value in wanted.items() if name in known}


def _reason(error: Exception) -> str:
    """What picamera2 says, with what was behind it: of itself it only says that its opening did not complete."""
    reasons = [str(error).rstrip(".")]
    if error.__cause__ is not None:
        reasons.append(str(error.__cause__))
    if any("busy" in reason.lower() or "acquire" in reason.lower() for reason in reasons):
        reasons.append("another program uses the camera")
    return ": ".join(reasons)


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
