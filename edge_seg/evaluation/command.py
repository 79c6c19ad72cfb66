"""`edge-seg eval [DIR]`: how good and how steady are our masks, against ground truth and public smoothers?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_seg.commands import Subparsers
from edge_seg.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from edge_seg.evaluation.evaluate import Plan

METHOD_NAMES = ("raw", "ema", "mediapipe", "pphumanseg", "ours")

DESCRIPTION = """\
Measures masks over time against ground truth: the model's own (raw), three public smoothers (ema, mediapipe,
pphumanseg) and ours, all on the same masks of the model. Explained in docs/evaluation.md.

DIR is one sequence or a folder of them, NAME/rgb.mp4 with NAME/alpha.mkv (8-bit gray), or
NAME/rgb/NNNNN.jpg with NAME/mask/NNNNN.png. Without DIR, it is a set of drawn sequences."""


def register(commands: Subparsers) -> None:
    parser = commands.add_parser(
        "eval",
        help="measure mask quality over time against ground truth",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, nargs="?", help="sequences with ground truth")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument(
        "--method",
        action="append",
        choices=METHOD_NAMES,
        help="only this method, and any others named in the same way (default: all)",
    )
    parser.add_argument(
        "--clip",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only sequences of this name, which may have * and ?, and any others named in the same way",
    )
    parser.add_argument(
        "--late",
        action="store_true",
        help="also the late-mask test: the ground truth is the model, late and seldom",
    )
    parser.add_argument(
        "--dump",
        metavar="OUT",
        type=Path,
        help="write all masks as OUT/CLIP/METHOD/NNNNN.png, 8-bit gray, at the model's resolution",
    )
    parser.add_argument(
        "--report", metavar="OUT.html", type=Path, help="write a page with plots and pictures"
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="auto, the name of a shipped model, or a path to a .tflite file with a card beside it",
    )
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        type=Path,
        help="take the model and the flow and fusion settings from this configuration",
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="run the model anew, instead of what it gave before"
    )
    parser.set_defaults(handler=handle)


def handle(arguments: argparse.Namespace) -> int:
    # Only here, so that no other command loads all this.
    from edge_seg.evaluation import evaluate, report, sequences, synthetic_set, table
    from edge_seg.evaluation.masks import cache_folder

    if arguments.folder is None:
        found = sequences.matching(synthetic_set.sequences(), tuple(arguments.clip), "the drawn set")
    else:
        found = sequences.find(arguments.folder, tuple(arguments.clip))
    plan = _plan(arguments, None if arguments.no_cache else cache_folder())
    page = report.Page() if arguments.report else None
    if arguments.report:
        _check_writable(arguments.report)

    clips: dict[str, table.Figures] = {}
    late: list[dict[str, table.Figures]] = []
    total = sum(sequence.count for sequence in found) * plan.ticks_per_frame
    with _progress(total) as tick:
        for result in evaluate.evaluate(found, plan, tick):
            clips[result.clip.name] = result.scores
            late.append(dict(result.late))
            if page is not None:
                page.add(result)
    for sequence in found:
        if sequence.left_out:
            print(f"edge-seg: {sequence.name}: {sequence.left_out}", file=sys.stderr)

    mean = evaluate.means(list(clips.values()))
    late_means = {delay: evaluate.means([each[delay] for each in late]) for delay in late[0]}
    if arguments.json:
        print(json.dumps(table.as_json(clips, mean, late_means), indent=2))
    else:
        print(table.text(clips, mean, late_means))
    if page is not None:
        _write(arguments.report, page.html(clips, mean, late_means))
    return EXIT_OK


def _plan(arguments: argparse.Namespace, cache: Path | None) -> Plan:
    from edge_seg import config_file
    from edge_seg.evaluation.evaluate import Plan
    from edge_seg.evaluation.methods import Settings

    plan = Plan(late=arguments.late, cache=cache, dump=arguments.dump)
    if arguments.config is not None:
        config = config_file.load(arguments.config)
        plan = replace(plan, model=config.model, ours=Settings(config.flow, config.fusion))
    if arguments.model is not None:
        plan = replace(plan, model=replace(plan.model, file=arguments.model, card=None))
    if arguments.method:
        plan = replace(plan, methods=tuple(name for name in METHOD_NAMES if name in arguments.method))
    return plan


def _check_writable(path: Path) -> None:
    """Better now than after minutes of work."""
    if path.is_dir() or not path.resolve().parent.is_dir():
        what = "is a folder" if path.is_dir() else "its folder does not exist"
        raise ConfigError(f"--report {path}: {what}: expected a file to write")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--report {path}: cannot be written: {error.strerror}") from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], object]]:
    """A progress bar where a person looks on; yields what moves it on by one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    try:
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        yield lambda: None
        return
    with tqdm(total=total, file=sys.stderr, unit="step", leave=False) as bar:
        yield bar.update
