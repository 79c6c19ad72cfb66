"""The figures as text for people and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_seg.evaluation.metrics import NAMES, Scores

Figures = Mapping[str, Scores]
"""By method."""

HEADINGS = {
    "iou": "IoU",
    "bf1": "BF1",
    "mad": "MADx1000",
    "dtssd": "dtSSDx100",
    "ghost": "ghost_3",
    "cut": "cut_3",
}
DECIMALS = {"iou": 3, "bf1": 3, "mad": 1, "dtssd": 2, "ghost": 3, "cut": 3}
REFERENCE = "raw"
DIFFERENCES = ("iou", "bf1")
"""Compared to `raw` by difference; the others, where less is better, by ratio."""
NO_FIGURE = "n/a"


def text(clips: Mapping[str, Figures], mean: Figures, late: Mapping[str, Figures]) -> str:
    """The whole table: each clip, the means, the means relative to raw, the late-mask test."""
    columns = [HEADINGS[name] for name in NAMES]
    rows: list[tuple[str, str, list[str]]] = []
    for clip, figures in clips.items():
        rows += [
            (clip if first else "", method, _cells(scores)) for first, method, scores in _firsts(figures)
        ]
    if mean and len(clips) > 1:
        rows += [("mean" if first else "", method, _cells(scores)) for first, method, scores in _firsts(mean)]
    blocks = [_block(("clip", "method"), columns, rows)] if rows else []
    if relative := relative_to_raw(mean):
        rows = [("", method, cells) for method, cells in relative.items()]
        heads = [
            heading + (" - raw" if name in DIFFERENCES else " / raw") for name, heading in HEADINGS.items()
        ]
        blocks.append(_block(("mean", "method"), heads, rows))
    if late:
        rows = [
            (delay if first else "", method, _cells(scores))
            for delay, figures in late.items()
            for first, method, scores in _firsts(figures)
        ]
        blocks.append(_block(("lag,every", "carried by"), columns, rows))
    return "\n\n".join(blocks)


def relative_to_raw(mean: Figures) -> dict[str, list[str]]:
    """The means of every method but raw, against those of raw, in the order of the metrics."""
    if REFERENCE not in mean:
        return {}
    raw = mean[REFERENCE]
    return {
        method: [_relative(name, getattr(scores, name), getattr(raw, name)) for name in NAMES]
        for method, scores in mean.items()
        if method != REFERENCE
    }


def as_json(clips: Mapping[str, Figures], mean: Figures, late: Mapping[str, Figures]) -> dict[str, Any]:
    """What `--json` prints. A figure that has no meaning for a clip is null."""
    out: dict[str, Any] = {
        "clips": {clip: _plain(figures) for clip, figures in clips.items()},
        "mean": _plain(mean),
    }
    if late:
        out["late"] = {delay: _plain(figures) for delay, figures in late.items()}
    return out


def cell(name: str, value: float) -> str:
    """One figure of one metric, rounded for reading."""
    return NO_FIGURE if math.isnan(value) else f"{value:.{DECIMALS[name]}f}"


def _relative(name: str, value: float, raw: float) -> str:
    if math.isnan(value) or math.isnan(raw):
        return NO_FIGURE
    if name in DIFFERENCES:
        return f"{value - raw:+.3f}"
    return f"{value / raw:.2f}" if raw > 0 else NO_FIGURE


def _cells(scores: Scores) -> list[str]:
    return [cell(name, getattr(scores, name)) for name in NAMES]


def _firsts(figures: Figures) -> list[tuple[bool, str, Scores]]:
    return [(index == 0, method, scores) for index, (method, scores) in enumerate(figures.items())]


def _block(names: tuple[str, str], columns: Sequence[str], rows: Sequence[tuple[str, str, list[str]]]) -> str:
    table = [(*names, *columns), *((first, second, *cells) for first, second, cells in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        left = [row[i].ljust(widths[i]) for i in range(2)]
        right = [row[i].rjust(widths[i]) for i in range(2, len(row))]
        lines.append("  ".join(left + right).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def _plain(figures: Figures) -> dict[str, dict[str, float | None]]:
    return {
        method: {name: None if math.isnan(value) else value for name, value in scores.as_dict().items()}
        for method, scores in figures.items()
    }
