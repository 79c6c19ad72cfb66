"""`edge-seg check CONFIG`: is this configuration right, and what does it come to?"""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_seg import config_file
from edge_seg.commands import Subparsers
from edge_seg.errors import EXIT_OK


def register(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "check",
        help="validate a configuration and print what it comes to",
        description="Validates a configuration. Prints it with every default spelled out, or each error in it as "
        "FILE:LINE: key: what is wrong, what is allowed.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the YAML file")
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    print(config_file.dump(config_file.load(arguments.config)), end="")
    return EXIT_OK
