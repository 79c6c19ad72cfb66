"""Lines over time as inline SVG: one line for each method, gaps where a figure has no meaning."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from edge_seg.evaluation.metrics import F64

WIDTH, HEIGHT = 900, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24
"""Margins around the plot, in SVG units."""
COLOURS = {
    "truth": "#888888",
    "raw": "#e69f00",
    "ema": "#cc79a7",
    "mediapipe": "#009e73",
    "pphumanseg": "#d55e00",
    "ours": "#0072b2",
}
"""Okabe and Ito's palette, which colour-blind people can tell apart (jfly.uni-koeln.de/color)."""


def chart(title: str, lines: Mapping[str, F64], lowest: float | None = None) -> str:
    """An SVG of `lines`, each of shape (frames,), over the frame number. The axis includes `lowest`."""
    everything = np.concatenate([*lines.values(), [np.nan if lowest is None else lowest]])
    known = everything[~np.isnan(everything)]
    if known.size == 0:
        return f"<p>{escape(title)}: has no meaning on any frame</p>"
    ticks = _ticks(float(known.min()), float(known.max()))
    low, high = float(ticks[0]), float(ticks[-1])
    frames = max(len(line) for line in lines.values())

    def x(frame: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * frame / max(frames - 1, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>']
    for value in ticks:
        at = f"{y(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for frame in _frame_ticks(frames):
        parts.append(f'<text x="{x(frame):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{frame}</text>')
    for name, line in lines.items():
        path = _path([(x(i), y(v)) for i, v in enumerate(line)])
        parts.append(f'<path class="{escape(name)}" d="{path}"><title>{escape(name)}</title></path>')
    return "".join([*parts, "</svg>"])


def legend(names: list[str]) -> str:
    return "".join(
        f'<span class="key"><i style="background:{COLOURS[name]}"></i>{escape(name)}</span>' for name in names
    )


def style() -> str:
    """The CSS of the charts."""
    return "\n".join(f"path.{name} {{ stroke: {colour} }}" for name, colour in COLOURS.items())


def _path(points: list[tuple[float, float]]) -> str:
    """SVG path data; a point that is NaN interrupts the line."""
    out: list[str] = []
    pen_down = False
    for px, py in points:
        if np.isnan(py):
            pen_down = False
            continue
        out.append(f"{'L' if pen_down else 'M'}{px:.1f} {py:.1f}")
        pen_down = True
    return "".join(out)


def _ticks(low: float, high: float) -> F64:
    """Four to nine round numbers, the first and the last of which enclose all values. Shape: (ticks,)."""
    span = max(high - low, 1e-6)
    power = 10 ** np.floor(np.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * 7 >= span)
    first = np.floor(low / step + 1e-9)
    last = max(np.ceil(high / step - 1e-9), first + 1)
    return np.asarray(np.arange(first, last + 1) * step, np.float64)


def _frame_ticks(frames: int) -> range:
    step = next((s for s in (5, 10, 20, 50, 100, 200, 500, 1000) if frames / s <= 12), frames)
    return range(0, frames, step)
