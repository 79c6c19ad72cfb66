"""A monitor on the board's own connector, by the kernel's mode setting: no X and no Wayland."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import AfterValidator

from edge_seg.errors import SinkError
from edge_seg.sinks import kms
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.kms import Connector
from edge_seg.sinks.pipeline import FIT, PipelineSink, size_caps
from edge_seg.types import I420

log = logging.getLogger(__name__)

LOOK_NS = 500_000_000
"""How often it is looked whether the monitor is still there: kmssink goes on without a word."""


def _mode(text: str) -> str:
    if not re.fullmatch(r"auto|[1-9]\d{1,4}x[1-9]\d{1,4}", text):
        raise ValueError("auto, or WIDTHxHEIGHT such as 1920x1080")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class HdmiSettings:
    """A monitor on HDMI, DisplayPort, DSI or whatever else the board has."""

    type: Literal["hdmi"] = "hdmi"
    connector: Annotated[str, MinLen(1)] = "auto"
    """As `edge-seg probe` names it: HDMI-A-1. auto: the first with a monitor."""
    mode: Annotated[str, AfterValidator(_mode)] = "auto"
    """WIDTHxHEIGHT. auto: the picture's own size where the monitor has it, else what the monitor prefers."""
    force_modesetting: bool = True
    """Sets the mode. false: goes on with the one that is set, in a plane of its own; not every driver can."""
    driver_name: Annotated[str, MinLen(1)] | None = None
    """For kmssink, instead of the card that has the connector."""
    bus_id: Annotated[str, MinLen(1)] | None = None
    """The same, by the place on the bus: pci:0000:00:10.0."""


class HdmiSink(PipelineSink):
    """Shows the pictures on one monitor. Without one it fails to open, and is to be tried again."""

    name = "hdmi"
    retry_s = 2.0

    def __init__(
        self,
        settings: HdmiSettings,
        root: Path = Path("/"),
        clock: Callable[[], int] = time.monotonic_ns,
        element: str = "kmssink",
    ) -> None:
        super().__init__()
        self._settings = settings
        self._root = root
        self._clock = clock
        self._element = element
        self._connector: Connector | None = None
        self._card: int | None = None
        self._looked_ns = 0

    def open(self, output: OutputFormat) -> None:
        settings = self._settings
        connector = choose_connector(kms.connectors(self._root), settings.connector)
        mode = choose_mode(connector, settings.mode, output.width, output.height)
        identifier = self._take_card(connector)
        self._connector, self._looked_ns = connector, self._clock()

        def prepare(pipeline: Any) -> None:
            pipeline.get_by_name("size").set_property("caps", size_caps(*mode))
            sink = pipeline.get_by_name("display")
            if identifier is not None:
                sink.set_property("connector-id", identifier)
            if self._card is not None and sink.find_property("fd") is not None:
                sink.set_property("fd", self._card)
            else:
                self._let_go_of_card()  # GStreamer 1.20 (JetPack 6) opens it itself, and has to be the first

        self._play(FIT + self._text(), output, prepare)
        log.info("showing on %s of %s, %dx%d", connector.name, connector.card, *mode)

    def push(self, picture: I420, captured_ns: int) -> None:
        now_ns = self._clock()
        if self._connector is not None and now_ns - self._looked_ns >= LOOK_NS:
            self._looked_ns = now_ns
            if kms.status(self._connector, self._root) in ("disconnected", ""):
                raise SinkError(f"the monitor was unplugged from {self._connector.name}")
        super().push(picture, captured_ns)

    def close(self) -> None:
        # Only when the pipeline is down: it would draw with a descriptor that is something else meanwhile.
        super().close()
        self._let_go_of_card()

    def _let_go_of_card(self) -> None:
        card, self._card = self._card, None
        if card is not None:
            os.close(card)

    def _text(self) -> str:
        settings = self._settings
        text = f"{self._element} name=display sync=false qos=false max-lateness=-1 enable-last-sample=false"
        if self._element == "kmssink":
            text += f" force-modesetting={str(settings.force_modesetting).lower()}"
            for key, value in (("driver-name", settings.driver_name), ("bus-id", settings.bus_id)):
                text += f' {key}="{value}"' if value is not None else ""
        return text

    def _take_card(self, connector: Connector) -> int | None:
        """Opens the card and makes sure that it obeys us. Returns the connector's number."""
        settings = self._settings
        try:
            card = kms.open_card(connector, self._root)
        except OSError as error:
            raise _card_problem(error, connector) from error
        try:
            if not kms.owns_display(card):
                raise SinkError(
                    f"another program shows its picture on {connector.card} (a desktop, another player): end it, "
                    "for a desktop with `sudo systemctl isolate multi-user.target`"
                )
            identifier = kms.connector_id(card, connector.name)
        except (OSError, LookupError) as error:
            os.close(card)
            raise SinkError(f"{connector.card} does not tell its connectors: {error}") from error
        except SinkError:
            os.close(card)
            raise
        if settings.driver_name is not None or settings.bus_id is not None:
            os.close(card)  # kmssink opens it itself
        else:
            self._card = card
        return identifier

    def _failed(self, message: str, debug: str) -> SinkError:
        detail = debug.strip().splitlines()[-1] if debug.strip() else ""
        return SinkError(f"the display: {message}{f' ({detail})' if detail else ''}")


def choose_connector(found: list[Connector], wanted: str) -> Connector:
    """The one that is named, or the first with a monitor. Raises SinkError: permanent where it is no name of one."""
    if wanted != "auto" and found and wanted not in (connector.name for connector in found):
        names = ", ".join(connector.name for connector in found)
        raise SinkError(f"there is no connector {wanted}: this board has {names}", permanent=True)
    usable = [connector for connector in found if wanted in ("auto", connector.name)]
    for connector in usable:
        if connector.is_connected:
            return connector
    if not usable:
        raise SinkError("this machine has no display connectors (nothing in /sys/class/drm)")
    raise SinkError(f"no monitor is plugged in to {' or '.join(connector.name for connector in usable)}")


def choose_mode(connector: Connector, wanted: str, width: int, height: int) -> tuple[int, int]:
    """The size of the display: as configured, else the picture's, else the monitor's preferred. Raises SinkError."""
    if wanted != "auto":
        mode = tuple(int(side) for side in wanted.split("x"))
        if connector.modes and mode not in connector.modes:
            offered = ", ".join(f"{w}x{h}" for w, h in connector.modes)
            raise SinkError(f"the monitor at {connector.name} has no mode {wanted}: it has {offered}")
        return mode[0], mode[1]
    if (width, height) in connector.modes or not connector.modes:
        return width, height
    return connector.modes[0]


def _card_problem(error: OSError, connector: Connector) -> SinkError:
    path = f"/dev/dri/{connector.card}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return SinkError(
            f"{path} may not be opened: run `sudo usermod -aG video $USER` and log in again", permanent=True
        )
    return SinkError(f"{path} cannot be opened: {error.strerror or error}")
