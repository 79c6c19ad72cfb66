"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
from typing import NoReturn

import cv2

from edge_seg import __version__
from edge_seg.errors import ConfigError, EdgeSegError

log = logging.getLogger(__name__)

DESCRIPTION = """\
Finds the person in a live camera picture, puts another background behind them, and serves the video.
Everything is set in one YAML file; config/edge-seg.yaml explains each key."""

EXIT_STATUS = """\
exit status: 0 done or stopped by a signal, 1 failed at run time, 2 wrong usage, 78 bad configuration"""


def parser() -> argparse.ArgumentParser:
    # Not before: a kernel that does not fit ends the command like any other error.
    from edge_seg.commands import bench, check, convert, model, probe, run, snapshot
    from edge_seg.evaluation import command as evaluate

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
    # OpenCV would take every core for stages that last a tenth of a millisecond.
    cv2.setNumThreads(1)
    try:
        chosen = parser().parse_args(arguments)
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


def entry() -> NoReturn:
    """Runs one command and ends the process: at once where a thread hangs in a driver or in a model's first
    inference. Torn down around it, libraries in C++ would abort."""
    status = main()
    # Those of GStreamer are known here as Dummy-N, whether they still run or not; they hold nothing of ours.
    mine = threading.current_thread()
    others = [one for one in threading.enumerate() if one is not mine and not one.name.startswith("Dummy-")]
    if others:
        log.info("left behind: %s", ", ".join(thread.name for thread in others))
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # its reader has gone
                stream.flush()
        os._exit(status)
    sys.exit(status)
