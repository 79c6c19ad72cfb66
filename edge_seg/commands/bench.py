"""`edge-seg bench`: what every stage costs on this machine."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import edge_seg
from edge_seg import bench, bench_realtime, bench_sweep, config_file
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.commands import Subparsers
from edge_seg.config import Config
from edge_seg.errors import EXIT_OK
from edge_seg.memory import keep_freed, limit_arenas
from edge_seg.sources import SyntheticSettings

PACKAGE = Path(edge_seg.__file__).resolve().parent
CLIP = next(
    (
        clip
        for folder in (PACKAGE / "demo", PACKAGE.parent / "config" / "demo")
        if (clip := folder / "person.mp4").is_file()
    ),
    PACKAGE / "demo" / "person.mp4",
)
"""The clip of the demo: inside an installed package, below config/ in a checkout."""


def register(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "bench",
        help="time every stage on a real clip",
        description="Sends frames of a real clip through all stages, one by one, and prints what each costs, beside "
        "the model alone and a copy of the frame.",
    )
    parser.add_argument("--size", metavar="WxH", type=_size, default=(1280, 720), help="default: 1280x720")
    parser.add_argument("--frames", metavar="N", type=_count, default=300, help="default: 300")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=_count,
        default=1,
        help="threads of the model (default: 1, so that it compares with the other stages)",
    )
    parser.add_argument(
        "--clip", metavar="VIDEO", type=Path, default=CLIP, help="default: the clip of the demo"
    )
    parser.add_argument(
        "--config", metavar="CONFIG", type=Path, help="take the stages' settings from this file"
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="also at other sizes, with 1 and 2 threads of the model, other flow grids and mattes (a minute or two)",
    )
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="also run the whole engine at 30 frames a second, without outputs",
    )
    parser.add_argument(
        "--model-delay-ms",
        metavar="D",
        type=float,
        default=0,
        help="with --realtime, slow the model by D ms a call",
    )
    parser.add_argument("--seconds", metavar="N", type=float, default=10, help="of --realtime (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=handle)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1280x720, got {text!r}")
    width, height = int(match[1]), int(match[2])
    if min(width, height) < 16:
        raise argparse.ArgumentTypeError(f"expected at least 16x16, got {text}")
    return width, height


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def handle(arguments: argparse.Namespace) -> int:
    if arguments.config is not None:
        config = config_file.load(arguments.config)
    else:
        config = Config(source=SyntheticSettings(), background=BackgroundSettings(type="colour"))
    limit_arenas()  # as `run` does
    keep_freed()
    config = config.model_copy(update={"model": replace(config.model, threads=arguments.threads)})
    result = bench.run(config, arguments.clip, arguments.size, arguments.frames).as_json()
    if arguments.realtime:
        result["realtime"] = bench_realtime.run(
            config, arguments.clip, arguments.size, arguments.seconds, arguments.model_delay_ms
        )
    if arguments.sweep:
        result["sweep"] = list(bench_sweep.run(config, arguments.clip, arguments.size, arguments.frames))
    if arguments.json:
        print(json.dumps(result))
        return EXIT_OK
    model = result["model"]
    print(
        f"{result['size']}, model {model['name']} on {result['runtime']}, {arguments.threads} thread(s); ms a frame"
    )
    print(f"{'':22}{'p50':>9}{'p99':>9}")
    rows = {
        **result["stages"],
        "all of a frame": result["frame_ms"],
        "model, invoke alone": model["invoke_ms"],
        "a copy of the frame": result["memcpy_ms"],
    }
    for name, values in rows.items():
        p99 = f"{values['p99']:9.3f}" if "p99" in values else ""
        print(f"{name:22}{values['p50']:9.3f}{p99}")
    print(f"composite / copy       {result['composite_over_memcpy']:.2f}")
    print(f"all but model / invoke {result['overhead_over_invoke']:.3f}")
    print(f"peak memory            {result['peak_rss_mb']:.0f} MB")
    for name, value in result.get("realtime", {}).items():
        print(f"{name:22} {value}")
    if arguments.sweep:
        print(f"\n{bench_sweep.table(result['sweep'])}")
    return EXIT_OK
