"""Mask quality against the model's time: holding the newest mask, carrying it (ours), waiting for each (exact).

    .venv/bin/python benchmarks/latency.py DIR [--plots FOLDER]

DIR holds sequences with ground truth, as for `edge-seg eval`. The model's masks are real, its time is simulated:
frames come every 1/30 s, the model takes the newest one whenever it is free, and a frame waits for its mask until
WAIT_MS after its capture, as the engine does with the default budget of 40 ms. `hold` shows the newest mask that is
there, unmoved. `exact` waits for every mask and shows only the frames that the model looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_seg.evaluation import metrics, sequences
from edge_seg.evaluation.clip import Clip, load
from edge_seg.evaluation.evaluate import Segmenters
from edge_seg.evaluation.masks import cache_folder, model_masks
from edge_seg.evaluation.methods import Ours, Settings
from edge_seg.model_card import ModelSettings
from edge_seg.types import F32

MODEL_MS = (10, 40, 100, 250)
INTERVAL_MS = 1000 / 30
WAIT_MS = 32.0
SUBMIT_MS = 1.0
"""From the capture of a frame to its hand-over to the model: the pyramid."""
FIGURES = ("iou", "bf1", "ghost", "cut", "dtssd")
COLOURS = {"hold": "#e69f00", "ours": "#0072b2", "exact": "#009e73"}


@dataclass(frozen=True)
class Arrival:
    """A mask and when it is there."""

    frame: int
    at_ms: float


def schedule(frames: int, model_ms: float) -> list[Arrival]:
    """Which frames the model looks at, and when it is done with each."""
    arrivals: list[Arrival] = []
    free_ms = 0.0
    newest = -1
    while True:
        # The newest frame that has been handed over when the model is free, or the next one to come.
        frame = max(int((free_ms - SUBMIT_MS) // INTERVAL_MS), newest + 1, 0)
        if frame >= frames:
            return arrivals
        begin_ms = max(free_ms, frame * INTERVAL_MS + SUBMIT_MS)
        free_ms = begin_ms + model_ms
        newest = frame
        arrivals.append(Arrival(frame, free_ms))


def hold(clip: Clip, masks: F32, arrivals: list[Arrival]) -> tuple[F32, F32]:
    out = np.zeros_like(clip.truth)
    for index in range(len(clip)):
        there = [arrival.frame for arrival in arrivals if arrival.at_ms <= index * INTERVAL_MS + WAIT_MS]
        if there:
            out[index] = masks[there[-1]]
    return out, clip.truth


def ours(clip: Clip, masks: F32, arrivals: list[Arrival]) -> tuple[F32, F32]:
    out = np.zeros_like(clip.truth)
    method, waiting = Ours(Settings()), list(arrivals)
    for index, small in enumerate(clip.smalls):
        method.advance(small)
        while waiting and waiting[0].at_ms <= index * INTERVAL_MS + WAIT_MS:
            arrival = waiting.pop(0)
            method.observe(masks[arrival.frame], arrival.frame)
        out[index] = method.target()
    return out, clip.truth


def exact(clip: Clip, masks: F32, arrivals: list[Arrival]) -> tuple[F32, F32]:
    out = []
    method = Ours(Settings())
    frames = [arrival.frame for arrival in arrivals]
    for shown, index in enumerate(frames):
        method.advance(clip.smalls[index])
        method.observe(masks[index], shown)
        out.append(method.target())
    return np.stack(out), clip.truth[frames]


METHODS: dict[str, Callable[[Clip, F32, list[Arrival]], tuple[F32, F32]]] = {
    "hold": hold,
    "ours": ours,
    "exact": exact,
}
Table = dict[tuple[str, int], dict[str, float]]


def measure(folder: Path) -> Table:
    """(method, model's ms) -> figure -> mean over clips."""
    segmenters = Segmenters(ModelSettings(), None)
    rows: dict[tuple[str, int], list[metrics.Scores]] = {}
    for sequence in sequences.find(folder):
        clip, segmenter = load(sequence, segmenters, lambda: None)
        masks = model_masks(clip, segmenter, segmenters.identity(segmenter), cache_folder(), lambda: None)
        for model_ms in MODEL_MS:
            arrivals = schedule(len(clip), model_ms)
            for name, method in METHODS.items():
                shown, truth = method(clip, masks, arrivals)
                rows.setdefault((name, model_ms), []).append(metrics.scores(shown, truth))
        print(f"{sequence.name}: done", file=sys.stderr)
    return {
        key: {figure: getattr(metrics.mean(scores), figure) for figure in FIGURES}
        for key, scores in rows.items()
    }


def plot(title: str, lines: dict[str, list[float]]) -> str:
    """An SVG of one figure over the model's time."""
    width, height, left, bottom, top, right = 420, 240, 48, 34, 26, 60
    values = [value for line in lines.values() for value in line]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low or 1)
    low, high = low - margin, high + margin
    xs = [left + (width - left - right) * i / (len(MODEL_MS) - 1) for i in range(len(MODEL_MS))]

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11"><rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{left}" y="16" font-size="13">{title}</text>'
    ]
    for tick in np.linspace(low + margin, high - margin, 4):
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.3g}</text>'
        )
    for x, model_ms in zip(xs, MODEL_MS, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{height - 16}" text-anchor="middle">{model_ms}</text>')
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 2}" text-anchor="middle">model, ms</text>'
    )
    for name, line in lines.items():
        points = " ".join(f"{x:.1f},{y(value):.1f}" for x, value in zip(xs, line, strict=True))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>'
            f'<text x="{width - right + 6}" y="{y(line[-1]) + 4:.1f}" fill="{COLOURS[name]}">{name}</text>'
        )
    return "".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--plots", metavar="FOLDER", type=Path, help="write one SVG a figure")
    arguments = parser.parse_args()
    table = measure(arguments.folder)
    print("| model, ms | method | " + " | ".join(FIGURES) + " |")
    print("|---|---|" + "---|" * len(FIGURES))
    for model_ms in MODEL_MS:
        for name in METHODS:
            cells = " | ".join(f"{table[name, model_ms][figure]:.3f}" for figure in FIGURES)
            print(f"| {model_ms} | {name} | {cells} |")
    if arguments.plots:
        arguments.plots.mkdir(parents=True, exist_ok=True)
        for figure in FIGURES:
            lines = {name: [table[name, model_ms][figure] for model_ms in MODEL_MS] for name in METHODS}
            (arguments.plots / f"latency-{figure}.svg").write_text(plot(figure, lines))


if __name__ == "__main__":
    main()
