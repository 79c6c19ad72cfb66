"""Cameras on the CSI connectors of a Jetson, by NVIDIA's nvarguscamerasrc."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import ConfigError
from edge_seg.sources.base import ArgusSettings
from edge_seg.sources.gst import LIVE_SINK, GstSource

FLIP_METHODS = {"none": 0, "180": 2, "horizontal": 4, "vertical": 6}
"""Of nvvidconv."""


class ArgusSource(GstSource):
    """A Jetson's CSI camera: the image processor delivers NV12 in its own memory, the converter beside it takes
    the pictures out as I420."""

    def __init__(self, settings: ArgusSettings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(clock)
        self.name = f"argus camera {settings.camera}"
        self._settings = settings

    def _build(self) -> Any:
        gst = gstreamer.load()
        missing = [
            name for name in ("nvarguscamerasrc", "nvvidconv") if gst.ElementFactory.find(name) is None
        ]
        if missing:
            raise ConfigError(
                f"{self.name}: {' and '.join(missing)} missing: is this a Jetson? Run "
                "`sudo apt install nvidia-l4t-gstreamer nvidia-l4t-camera`; a Raspberry Pi's camera is of type csi"
            )
        return gst.parse_launch(pipeline_text(self._settings))


def pipeline_text(settings: ArgusSettings) -> str:
    """The pipeline for these settings."""
    fps = Fraction(settings.fps).limit_denominator(1001)
    return (
        f"nvarguscamerasrc name=camera sensor-id={settings.camera} sensor-mode={settings.mode} ! "
        f"video/x-raw(memory:NVMM),format=NV12,width={settings.width},height={settings.height},"
        f"framerate={fps.numerator}/{fps.denominator} ! "
        f"nvvidconv flip-method={FLIP_METHODS[settings.flip]} ! video/x-raw,format=I420 ! " + LIVE_SINK
    )
