"""`edge-seg model`: what is in a model file, and how well two of them agree."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edge_seg.commands import Subparsers
from edge_seg.model_card import ModelSettings
from edge_seg.model_info import info
from edge_seg.model_verify import verify


def register(commands: Subparsers) -> None:
    parser = commands.add_parser("model", help="look at a mask model, or compare two")
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    show = kinds.add_parser("info", help="the card, tensors, operators, cost and timing of a model")
    show.add_argument("path", metavar="PATH", type=Path, help="a .tflite file")
    show.set_defaults(handler=_info)

    compare = kinds.add_parser("verify", help="the agreement of two models on pictures")
    compare.add_argument("path", metavar="PATH", type=Path, help="a .tflite file with its card beside it")
    compare.add_argument(
        "--against", metavar="FLOAT", type=Path, required=True, help="the other .tflite file"
    )
    compare.add_argument("--images", metavar="DIR", type=Path, required=True, help="a folder of pictures")
    compare.set_defaults(handler=_verify)

    for command in (show, compare):
        command.add_argument("--runtime", choices=("auto", "litert", "tflite"), default="auto")
        command.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _info(arguments: argparse.Namespace) -> int:
    result = info(arguments.path, ModelSettings(runtime=arguments.runtime))
    print(json.dumps(result.as_dict()) if arguments.json else result.as_text())
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    settings = ModelSettings(runtime=arguments.runtime)
    result = verify(arguments.path, arguments.against, arguments.images, settings)
    print(json.dumps(result.as_dict()) if arguments.json else result.as_text())
    return 0
