"""`edge-seg probe`: what this machine has for us, and what is missing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from edge_seg import probe
from edge_seg.commands import Subparsers
from edge_seg.errors import EXIT_OK
from edge_seg.probe.cameras import camera_line


def register(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "probe",
        help="list cameras, encoders, displays and runtimes, and what is missing",
        description="Looks for cameras, encoders, displays and model runtimes, tries them, and says what is missing "
        "and which command installs it.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    report = probe.run()
    print(json.dumps(report, indent=2) if arguments.json else "\n".join(lines(report)))
    return EXIT_OK


def lines(report: probe.Report) -> Iterator[str]:
    """The report for people."""
    machine = report["machine"]
    yield f"{machine['board']}, {machine['system']}, {machine['architecture']}, Python {machine['python']}"
    yield ""
    yield "CAMERAS"
    cameras = [camera for camera in report["cameras"] if camera["kind"] not in ("other", "loopback")]
    for camera in cameras:
        source = ", ".join(f"{key}: {value}" for key, value in camera.get("source", {}).items())
        yield f"  {camera['name']:28} source: {{{source}}}"
        if camera_line(camera):
            yield f"  {'':28} {camera_line(camera)}"
    yield from _none(cameras, report, "cameras")
    yield "ENCODERS"
    for encoder in report["encoders"]:
        kind = "hardware" if encoder["hardware"] else "software"
        yield f"  {encoder['element']:28} {kind}, {_state(encoder)}"
    yield from _none(report["encoders"], report, "encoders")
    yield "DISPLAYS"
    for display in report["displays"]:
        modes = f", {display['modes'][0]}" if display["modes"] else ""
        name = f"{display['card']} {display['connector']}"
        yield f"  {name:28} {display['status']}{modes} ({display['driver']})"
    for camera in report["cameras"]:
        if camera["kind"] == "loopback":
            device = camera["output"]["device"]
            yield f"  {camera['name']:28} virtual webcam, outputs: [{{type: v4l2, device: {device}}}]"
    yield from _none(report["displays"], report, "displays")
    yield "RUNTIMES"
    for runtime in report["runtimes"]:
        yield f"  {runtime['package']:28} {runtime['version'] or ''} {_state(runtime)}".replace(
            "  not", " not"
        )
        if "warning" in runtime:
            yield f"  {'':28} {runtime['warning']}"
    for library in report.get("libraries", []):
        problem = f": {library['problem']}" if "problem" in library else ""
        yield f"  {library['name']:28} {library['version'] or 'not installed'}{problem}"
    for delegate in report["delegates"]:
        yield f"  {delegate['name']:28} delegate, {delegate['library']}"
    yield from _none(report["runtimes"], report, "runtimes")
    if report["missing"]:
        yield "MISSING"
        for item in report["missing"]:
            yield f"  {item['what']:28} {item['why']}"
            yield f"  {'':28} $ {item['command']}"


def _state(entry: dict[str, object]) -> str:
    if not entry["works"]:
        return str(entry.get("problem", "does not work"))
    return "works, in use" if entry.get("in_use") else "works"


def _none(found: list[object], report: probe.Report, section: str) -> Iterator[str]:
    if section in report["problems"]:
        yield f"  {report['problems'][section]}"
    elif not found:
        yield "  none"
    yield ""
