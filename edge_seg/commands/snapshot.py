"""`edge-seg snapshot CONFIG OUT.png`: one composited frame, after the mask has settled."""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import cv2

from edge_seg import config_file
from edge_seg.colour import i420_to_bgr
from edge_seg.commands import Subparsers
from edge_seg.config import Config
from edge_seg.engine import Engine
from edge_seg.errors import EXIT_OK, ConfigError, SourceLost
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.stopping import interrupted_by_signals
from edge_seg.target import Target
from edge_seg.types import I420, U8

SETTLED_FRAMES = 15
"""Half a second at 30 frames a second: exposure and mask have come to rest by then."""


def register(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "snapshot",
        help="write one composited frame as a picture",
        description="Runs the configuration without its outputs until the mask has settled, then writes one "
        "composited frame. The picture's kind follows its name: .png, .jpg.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the YAML file")
    parser.add_argument("out", metavar="OUT.png", type=Path, help="the picture to write")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=30, help="give up after so many seconds (default: 30)"
    )
    parser.add_argument(
        "--quality", metavar="N", type=_quality, default=95, help="of a JPEG, 1 to 100 (default: 95)"
    )
    parser.set_defaults(handler=handle)


def _quality(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 100, got {text!r}")
    return int(text)


class _Snapshot(Sink):
    """Keeps the frame after SETTLED_FRAMES with a mask."""

    name = "snapshot"

    def __init__(self, stop: threading.Event) -> None:
        self.engine: Engine | None = None
        self.picture: U8 | None = None
        self._stop = stop
        self._left = SETTLED_FRAMES

    def open(self, output: OutputFormat) -> None:
        pass

    def reformat(self, output: OutputFormat) -> None:
        pass

    def push(self, picture: I420, captured_ns: int) -> None:
        if self.picture is not None or self.engine is None or self.engine.shown_mask is None:
            return
        self._left -= 1
        if self._left <= 0:
            self.picture = i420_to_bgr(picture)
            self._stop.set()

    def close(self) -> None:
        pass


def handle(arguments: argparse.Namespace) -> int:
    config = config_file.load(arguments.config)
    out: Path = arguments.out
    if not cv2.haveImageWriter(out.name):
        raise ConfigError(f"{out}: expected a name that ends in .png or .jpg")
    stop = threading.Event()
    with interrupted_by_signals(stop), Target(out, overwrite=True) as target:
        picture = _take(config, stop, arguments.timeout)
        # Ignored by the others, which keep every pixel as it is.
        settings = [cv2.IMWRITE_JPEG_QUALITY, arguments.quality]
        _, encoded = cv2.imencode(out.suffix, picture, settings)
        target.write(encoded.tobytes())
    print(f"{out}: {picture.shape[1]}x{picture.shape[0]}")
    return EXIT_OK


def _take(config: Config, stop: threading.Event, timeout_s: float) -> U8:
    """The composited picture, shape (height, width, 3). Raises SourceLost when there is none in time."""
    sink = _Snapshot(stop)
    sink.engine = Engine(config, sinks=[sink])
    timer = threading.Timer(timeout_s, stop.set)
    timer.daemon = True
    timer.start()
    started = time.monotonic()
    sink.engine.run(stop)
    timer.cancel()
    if sink.picture is None:
        raise SourceLost(
            f"no frame with a mask within {time.monotonic() - started:.0f} s: is the source delivering "
            "(`edge-seg run` says why not), and is somebody in the picture?"
        )
    return sink.picture
