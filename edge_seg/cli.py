"""The command line."""

from __future__ import annotations

import argparse
import sys

import cv2

from edge_seg import __version__
from edge_seg.commands import bench, check, convert, model, probe, run, snapshot
from edge_seg.errors import ConfigError, EdgeSegError
from edge_seg.evaluation import command as evaluate

DESCRIPTION = """\
Finds the person in a live camera picture, puts another background behind them, and serves the video.
Everything is set in one YAML file; config/edge-seg.yaml explains each key."""

EXIT_STATUS = """\
exit status: 0 done or stopped by a signal, 1 failed at run time, 2 wrong usage, 78 bad configuration"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-seg",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edge-seg {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (run, check, convert, snapshot, probe, bench, evaluate, model):
        command.register(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns its exit status."""
    chosen = parser().parse_args(arguments)
    # OpenCV would take every core for stages that last a tenth of a millisecond.
    cv2.setNumThreads(1)
    try:
        return int(chosen.handler(chosen))
    except ConfigError as error:
        # As they are: editors jump to FILE:LINE.
        print(error, file=sys.stderr)
        return error.exit_status
    except EdgeSegError as error:
        print(f"edge-seg: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # The reader of our output has gone (`edge-seg check ... | head`): nothing is left to say to it.
        sys.stderr.close()
        return 0
