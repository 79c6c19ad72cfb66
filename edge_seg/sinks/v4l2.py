"""A virtual webcam: the pictures go into a node of v4l2loopback, which other programs take for a camera."""

from __future__ import annotations

import errno
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.pipeline import FIT, PipelineSink, size_caps
from edge_seg.sources import video_node

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class V4l2OutputSettings:
    """A virtual webcam (v4l2loopback)."""

    type: Literal["v4l2"] = "v4l2"
    device: Annotated[str, MinLen(1)] = "/dev/video10"
    format: Literal["I420", "YUY2", "NV12"] = "I420"
    """I420 is what we have; the others are for programs that know no other."""


class V4l2Sink(PipelineSink):
    """Feeds one node."""

    name = "v4l2"

    def __init__(self, settings: V4l2OutputSettings, element: str = "v4l2sink") -> None:
        super().__init__()
        self._settings = settings
        self._element = element

    def open(self, output: OutputFormat) -> None:
        settings = self._settings
        if self._element == "v4l2sink":
            check_device(Path(settings.device))

        def prepare(pipeline: Any) -> None:
            # Its readers keep the size that they began with: pictures of another size are fitted into it.
            pipeline.get_by_name("size").set_property("caps", size_caps(output.width, output.height))
            if self._element == "v4l2sink":
                pipeline.get_by_name("webcam").set_property("device", settings.device)

        self._play(
            f"{FIT}video/x-raw,format={settings.format} ! "
            f"{self._element} name=webcam sync=false qos=false enable-last-sample=false",
            output,
            prepare,
        )
        log.info("feeding %s, %dx%d %s", settings.device, output.width, output.height, settings.format)

    def _failed(self, message: str, debug: str) -> SinkError:
        # With exclusive_caps=1 a node that somebody feeds is an output no more.
        is_taken = "busy" in debug.lower() or "not a output device" in message
        hint = "; another program feeds it, or its readers hold another format" if is_taken else ""
        return SinkError(f"{self._settings.device}: {message}{hint}")


def check_device(path: Path) -> None:
    """Raises SinkError, with what to do, where pictures cannot be put into a device."""
    number = (re.search(r"(\d+)$", path.name) or ["", "10"])[1]
    load = f"sudo modprobe v4l2loopback video_nr={number} card_label=edge-seg exclusive_caps=1"
    try:
        node = video_node.query(path)
    except FileNotFoundError:
        raise SinkError(
            f"{path} does not exist: run `{load}` (package v4l2loopback-dkms)", permanent=True
        ) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            problem = "may not be opened: run `sudo usermod -aG video $USER` and log in again"
            raise SinkError(f"{path} {problem}", permanent=True) from error
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            raise SinkError(f"{path} is no video device", permanent=True) from error
        raise SinkError(f"{path} cannot be opened: {os.strerror(error.errno or 0)}") from error
    if not node.takes_pictures:
        raise SinkError(
            f"{path} is {node.card or node.driver}, into which no pictures can be put: outputs.device is to name a "
            f"virtual webcam (`{load}`)",
            permanent=True,
        )
