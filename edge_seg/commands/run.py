"""`edge-seg run CONFIG`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import signal
import threading
from pathlib import Path

from edge_seg import config_file, logs
from edge_seg.commands import Subparsers
from edge_seg.config_watch import ConfigWatch
from edge_seg.engine import Engine
from edge_seg.errors import EXIT_OK
from edge_seg.memory import keep_freed, limit_arenas
from edge_seg.notify import Notifier
from edge_seg.page.server import WebServer

log = logging.getLogger(__name__)


def register(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "run",
        help="run the daemon in the foreground",
        description="Runs the daemon until SIGINT or SIGTERM; SIGHUP reads the configuration again. Exit status: 0 "
        "stopped by a signal, 1 failed at run time, 78 bad configuration.",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the YAML file")
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=float,
        default=0,
        help="stop by itself after N seconds (default: never)",
    )
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    # What every thread does when the watchdog's SIGABRT, or a crash in a library, ends the process.
    faulthandler.enable()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    limit_arenas()
    keep_freed()
    config = config_file.load(arguments.config)
    logs.start(config.log)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    timer = threading.Timer(arguments.seconds, stop.set)
    timer.daemon = True
    if arguments.seconds > 0:
        timer.start()
    engine = Engine(config)
    engine.followers["log"] = lambda new: logs.start(new.log)
    notifier = Notifier(engine, stop)
    watch = ConfigWatch(arguments.config, lambda: engine.config, engine.reload, notifier)
    signal.signal(signal.SIGHUP, lambda *_: watch.ask())
    with WebServer(config.web, engine) as web, watch, notifier:
        engine.followers["web"] = lambda new: web.apply(new.web)
        engine.run(stop)
    timer.cancel()
    status = engine.status()
    log.info(
        "stopped after %d frames (%d replaced by newer ones before their turn, %d past the budget); "
        "p50/p99 in ms: %s",
        status.frames_out,
        status.frames_dropped,
        status.misses,
        engine.times.summary(),
    )
    return EXIT_OK
