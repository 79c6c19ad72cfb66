"""`edge-seg convert IN OUT`: a recording through the same stages as live video, every frame with its own mask."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

from edge_seg import config_file, encoders
from edge_seg.commands import Subparsers
from edge_seg.config import Config
from edge_seg.conversion.converter import Converter
from edge_seg.conversion.recording import Recording
from edge_seg.conversion.writer import MUXERS, Stopped, Wanted, Writer
from edge_seg.errors import EXIT_OK, ConfigError, EdgeSegError
from edge_seg.sinks.base import OutputFormat
from edge_seg.stopping import interrupted_by_signals
from edge_seg.target import Target

DEFAULT_QUALITY = 19


def register(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "convert",
        help="put a recording through the same stages, with its sound",
        description="Converts a recording: every frame with its own mask, none dropped, at the times that they have, "
        "the sound copied. OUT appears when it is whole; started again after an interruption, it simply works.",
    )
    parser.add_argument("input", metavar="IN", type=Path, help="a video file")
    parser.add_argument("out", metavar="OUT", type=Path, help=f"the new file: {', '.join(MUXERS)}")
    parser.add_argument(
        "--config", metavar="CONFIG", type=Path, help="take the stages' settings from this file"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT where it is there already")
    parser.add_argument(
        "--encoder",
        choices=("auto", *(encoder.element for encoder in encoders.RANKED if encoder.codec == "h264")),
        default="auto",
        help="default: the one that makes the best pictures",
    )
    parser.add_argument(
        "--quality",
        metavar="N",
        type=_quality,
        default=DEFAULT_QUALITY,
        help=f"x264's quantiser, 10 to 40, lower is better and larger (default: {DEFAULT_QUALITY})",
    )
    parser.set_defaults(handler=handle)


def _quality(text: str) -> int:
    if not text.isdecimal() or not 10 <= int(text) <= 40:
        raise argparse.ArgumentTypeError(f"expected a whole number from 10 to 40, got {text!r}")
    return int(text)


def handle(arguments: argparse.Namespace) -> int:
    config = Config() if arguments.config is None else config_file.load(arguments.config)
    check(arguments.input, arguments.out)
    stop = threading.Event()
    with interrupted_by_signals(stop):
        return _run(config, arguments, stop)


def _run(config: Config, arguments: argparse.Namespace, stop: threading.Event) -> int:
    started = time.monotonic()
    recording = Recording(arguments.input, config.geometry)
    with Target(arguments.out, arguments.force) as target:
        recording.open()
        try:
            frames, writer, output = _convert(recording, target, config, arguments, stop)
        finally:
            recording.close()
        if stop.is_set():
            raise EdgeSegError(f"{arguments.out}: interrupted after {frames} frames; nothing was written")
        target.finish()
    took_s = time.monotonic() - started
    if recording.ends_early_ns:
        print(
            f"{arguments.input}: its pictures end {recording.ends_early_ns / 1e9:.1f} s before the file says that it "
            "does: is it cut off?",
            file=sys.stderr,
        )
    print(
        f"{arguments.out}: {frames} frames, {output.width}x{output.height}, in {took_s:.1f} s ({frames / took_s:.1f} a "
        f"second); {writer.encoder.element}; sound: {'; '.join(writer.sound) or 'none'}"
    )
    return EXIT_OK


def check(source: Path, out: Path) -> None:
    """Raises ConfigError where the names already say that it cannot be done."""
    if out.suffix.lower() not in MUXERS:
        raise ConfigError(
            f"{out}: expected a name that ends in {', '.join(MUXERS)}, got {out.suffix or 'no ending'!r}"
        )
    if source.exists() and out.exists() and source.samefile(out):
        raise ConfigError(f"{out}: is the recording itself; name another file")


def _convert(
    recording: Recording, target: Target, config: Config, arguments: argparse.Namespace, stop: threading.Event
) -> tuple[int, Writer, OutputFormat]:
    """Writes the target's partial file. Returns the number of frames and how they were written."""
    converter = Converter(config, recording)
    output = converter.output
    frames = 0
    try:
        wanted = Wanted(
            ending=arguments.out.suffix.lower(),
            output=output,
            pixel_aspect=recording.pixel_aspect,
            encoder=arguments.encoder,
            quality=arguments.quality,
            threads=max(1, os.cpu_count() or 1),
        )
        writer = Writer(target.partial, wanted, arguments.input, stop.is_set)
        try:
            total = round(recording.length_ns / 1e9 * float(output.fps)) or None
            # disable=None: no bar where nobody watches.
            with tqdm(total=total, unit=" frames", disable=None) as bar:
                for one in converter.pictures(stop.is_set):
                    writer.push(one.picture, one.pts_ns, one.duration_ns)
                    frames += 1
                    bar.update()
            if not frames and not stop.is_set():
                raise EdgeSegError(f"{recording.name}: holds no picture that can be decoded")
            writer.finish()
        except Stopped:
            pass  # said by the caller
        finally:
            writer.close()
    finally:
        converter.close()
    return frames, writer, output
