"""One HTML file, nothing loaded from elsewhere: the table, plots over time, and the frames worth a look."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape

import cv2
import numpy as np

from edge_seg.colour import yuv_to_rgb_rows
from edge_seg.evaluation import charts
from edge_seg.evaluation.evaluate import Result
from edge_seg.evaluation.metrics import FOREGROUND, NAMES
from edge_seg.evaluation.table import HEADINGS, Figures, cell, relative_to_raw
from edge_seg.pyramid import Yuv444
from edge_seg.types import F32, U8

SHEET_FRAMES = 6
"""Frames of each clip on its contact sheet."""
APART_FRAMES = 8
"""They are at least so far apart: neighbours look the same."""
TILE_WIDTH = 256
JPEG_QUALITY = 82
INSIDE, OUTSIDE = (60, 220, 60), (60, 60, 235)
"""Colours of the contours of the truth and of the mask, BGR."""

STYLE = """
:root { color-scheme: light dark }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 1500px; margin: 1.5em auto; padding: 0 1em }
table { border-collapse: collapse; margin: .6em 0 }
td, th { padding: .2em .8em; text-align: right }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
th { border-bottom: 1px solid #8888 }
tr.first td { border-top: 1px solid #8884 }
tr.ours td { font-weight: 600 }
svg { width: 100%; max-width: 1100px; display: block }
svg text { font: 11px sans-serif; fill: #888 }
path { fill: none; stroke-width: 1.3 }
.grid { stroke: #8883 }
h2 { margin-top: 2em }
h3 { margin: 1em 0 .2em }
.key { margin-right: 1.2em }
.key i { display: inline-block; width: 1.6em; height: 3px; margin-right: .4em; vertical-align: middle }
.sheet { overflow-x: auto }
.sheet table td, .sheet table th { padding: 2px; text-align: center !important }
.sheet img { display: block; width: 210px }
"""

PREFACE = """<p>IoU at 0.5 and BF1 (1 px): more is better. MAD, dtSSD (jitter), ghost (what trails) and cut
(what is eaten at the leading edge): less is better. All methods work on the same masks of the model.</p>"""


class Page:
    """Collects one clip after the other, so that no two clips' masks are in memory at the same time."""

    def __init__(self) -> None:
        self._sections: list[str] = []

    def add(self, result: Result) -> None:
        clip, names = result.clip, list(result.masks)
        area = {"truth": clip.truth.mean((1, 2), dtype=np.float64)}
        area |= {name: mask.mean((1, 2), dtype=np.float64) for name, mask in result.masks.items()}
        iou = {name: figures.iou for name, figures in result.figures.items()}
        dtssd = {name: figures.dtssd for name, figures in result.figures.items()}
        self._sections.append(
            f'<h2 id="{escape(clip.name)}">{escape(clip.name)}</h2>{charts.legend(["truth", *names])}'
            f"<h3>IoU</h3>{charts.chart('IoU', iou)}"
            f"<h3>Area (share of the picture)</h3>{charts.chart('area', area)}"
            f"<h3>dtSSD x 100 of each frame</h3>{charts.chart('dtSSD', dtssd, lowest=0)}"
            f"<h3>Frames where the methods differ most</h3>{_sheet(result)}"
        )

    def html(self, clips: Mapping[str, Figures], mean: Figures, late: Mapping[str, Figures]) -> str:
        """The whole page."""
        parts = [
            f"<h1>Mask quality over time</h1>{PREFACE}",
            _table("clip", "method", {**clips, "mean": mean}),
        ]
        if relative := relative_to_raw(mean):
            parts.append("<h3>Means, against raw: IoU and BF1 by difference, the others by ratio</h3>")
            rows = [_row("", method, cells, first=False) for method, cells in relative.items()]
            parts.append(f"<table>{_head('', 'method')}{''.join(rows)}</table>")
        if late:
            parts.append("<h3>Late-mask test: the truth as the model, (lag, every so-manieth) frames</h3>")
            parts.append(_table("lag, every", "carried by", late))
        body = "".join([*parts, *self._sections])
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Mask quality over time</title>'
            f"<style>{STYLE}{charts.style()}</style></head><body>{body}</body></html>\n"
        )


def _table(first: str, second: str, groups: Mapping[str, Figures]) -> str:
    rows = [
        _row(
            group if index == 0 else "",
            method,
            [cell(name, getattr(scores, name)) for name in NAMES],
            first=index == 0,
        )
        for group, figures in groups.items()
        for index, (method, scores) in enumerate(figures.items())
    ]
    return f"<table>{_head(first, second)}{''.join(rows)}</table>"


def _head(*names: str) -> str:
    cells = [*names, *(HEADINGS[name] for name in NAMES)]
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in cells)}</tr>"


def _row(group: str, method: str, cells: list[str], first: bool) -> str:
    classes = " ".join(["first"] * first + ["ours"] * (method == "ours"))
    return f'<tr class="{classes}">{"".join(f"<td>{escape(c)}</td>" for c in (group, method, *cells))}</tr>'


def most_different(
    masks: Mapping[str, F32], count: int = SHEET_FRAMES, apart: int = APART_FRAMES
) -> list[int]:
    """The frames on which the methods differ most among each other, in order of time, not next to each other.

    Shape of each mask: (frames, rows, cols).
    """
    frames = len(next(iter(masks.values())))
    spread = np.zeros(frames)
    for frame in range(frames):
        spread[frame] = np.std([mask[frame] for mask in masks.values()], axis=0).mean()
    chosen: list[int] = []
    for frame in np.argsort(-spread, kind="stable"):
        if len(chosen) < count and all(abs(int(frame) - other) >= apart for other in chosen):
            chosen.append(int(frame))
    return sorted(chosen)


def _sheet(result: Result) -> str:
    """One row for each frame: the picture with the truth, and each method's cut-out with both contours."""
    names = list(result.masks)
    rows = [f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in ('frame', 'truth', *names))}</tr>"]
    for frame in most_different(result.masks):
        picture, truth = to_bgr(result.clip.smalls[frame]), result.clip.truth[frame]
        tiles = [tile(picture, truth, truth)]
        tiles += [tile(picture, result.masks[name][frame], truth) for name in names]
        label = escape(result.clip.labels[frame])
        rows.append(f"<tr><td>{label}</td>{''.join(f'<td>{_image(t)}</td>' for t in tiles)}</tr>")
    note = "<p>Green: the truth's contour. Red: the mask's, at 0.5. What the mask leaves out is dark.</p>"
    return f'{note}<div class="sheet"><table>{"".join(rows)}</table></div>'


def tile(picture: U8, mask: F32, truth: F32) -> U8:
    """The picture, dark where the mask is not, with both contours. Shape: (height, width, 3), uint8, BGR."""
    width = TILE_WIDTH
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    big = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    shown = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    out = np.clip(big * (0.25 + 0.75 * shown[:, :, None]), 0, 255).astype(np.uint8)
    for values, colour in ((truth, INSIDE), (mask, OUTSIDE)):
        inside = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR) >= FOREGROUND
        contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, colour, 1)
    return out


def to_bgr(small: Yuv444) -> U8:
    """Shape: (height, width, 3), uint8."""
    yuv = cv2.merge((small.y, small.u, small.v))
    return np.asarray(cv2.transform(yuv, np.ascontiguousarray(yuv_to_rgb_rows(small.matrix)[::-1])), np.uint8)


def _image(bgr: U8) -> str:
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise RuntimeError(f"OpenCV could not write a JPEG of shape {bgr.shape}")
    text = base64.b64encode(data.tobytes()).decode("ascii")
    return f'<img alt="" src="data:image/jpeg;base64,{text}">'
