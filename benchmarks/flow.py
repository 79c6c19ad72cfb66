"""What each setting of the flow costs and gives, beside OpenCV's dense flow and beside doing nothing.

    python benchmarks/flow.py SEQUENCES --model models/selfie_landscape_int8.tflite

Cost: milliseconds a frame with one thread, and that over one invoke of the model, which runs before each frame,
so that both see the same machine (medians of the frame-by-frame ratios). Gain: the late-mask test of
docs/evaluation.md at 256x144, where the ground truth is the model, `lag` frames late and only every n-th frame;
its mask is moved by one flow after the other. "own": by the vector of the block in which a pixel lies. "overlap":
the mean of what the four nearest blocks' vectors fetch, weighted bilinearly (overlapped block compensation).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edge_seg import flow
from edge_seg.evaluation import metrics, sequences
from edge_seg.evaluation.late import DELAYS, Delay
from edge_seg.flow import FlowSettings
from edge_seg.types import F32, U8, BlockFlow

WIDTH, HEIGHT = 256, 144
BAND_PX = 16
"""Rows marked "band": precise only within so many pixels of the edge of the mask one frame before."""
DENSE = NDArray[np.float32]
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)


@dataclass
class Method:
    name: str
    calculate: Callable[[U8, U8, U8], BlockFlow | DENSE]
    flows: list[BlockFlow | DENSE] = field(default_factory=list)
    cost_ms: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    late: list[list[tuple[float, float]]] = field(default_factory=list)
    late_overlap: list[list[tuple[float, float]]] = field(default_factory=list)


class Ours:
    """The block flow on a grid `width` pixels wide, each flow the hint of the next, each picture prepared once."""

    def __init__(self, width: int, settings: FlowSettings, band: bool = False, hinted: bool = True) -> None:
        self.size, self.settings = (width, width * HEIGHT // WIDTH), settings
        self.band, self.hinted = band, hinted
        self.hint: BlockFlow | None = None
        self.newest: U8 | None = None
        self.prepared: flow.Prepared | None = None

    def prepare(self, picture: U8) -> flow.Prepared:
        if self.size[0] != WIDTH:
            picture = np.asarray(cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA), np.uint8)
        return flow.prepare(picture)

    def __call__(self, previous: U8, current: U8, near_edge: U8) -> BlockFlow:
        before = self.prepared
        if before is None or self.newest is not previous:  # a new clip
            before, self.hint = self.prepare(previous), None
        self.newest, self.prepared = current, self.prepare(current)
        active = None
        if self.band:
            step = self.settings.block_px
            active = np.ascontiguousarray(near_edge[step // 2 :: step, step // 2 :: step])
        found = flow.estimate(before, self.prepared, self.settings, self.hint, active)
        self.hint = found if self.hinted else None
        return found


class Dis:
    """OpenCV's dense inverse search (Kroeger et al., ECCV 2016), down to the finest scale."""

    def __init__(self, preset: int, width: int) -> None:
        self.flow = cv2.DISOpticalFlow_create(preset)
        self.flow.setFinestScale(0)
        self.size, self.scale = (width, width * HEIGHT // WIDTH), WIDTH / width

    def __call__(self, previous: U8, current: U8, near_edge: U8) -> DENSE:
        small = [cv2.resize(p, self.size, interpolation=cv2.INTER_AREA) for p in (current, previous)]
        found = self.flow.calc(small[0], small[1], None)
        return np.asarray(cv2.resize(found, (WIDTH, HEIGHT)) * np.float32(self.scale), np.float32)


def still(previous: U8, current: U8, near_edge: U8) -> DENSE:
    return np.zeros((HEIGHT, WIDTH, 2), np.float32)


def band_around(mask: U8) -> U8:
    square = np.ones((2 * BAND_PX + 1, 2 * BAND_PX + 1), np.uint8)
    return np.asarray(cv2.dilate(mask, square) - cv2.erode(mask, square), np.uint8)


def move(mask: F32, dense: DENSE) -> F32:
    border = cv2.BORDER_REPLICATE
    moved = cv2.remap(mask, X + dense[..., 0], Y + dense[..., 1], cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(moved, np.float32)


def own(found: BlockFlow | DENSE, mask: F32) -> F32:
    if not isinstance(found, BlockFlow):
        return move(mask, found)
    scale = WIDTH / found.grid_shape[1]
    return move(mask, flow.sample(found, (X + 0.5) / scale, (Y + 0.5) / scale) * np.float32(scale))


def overlapped(found: BlockFlow | DENSE, mask: F32) -> F32:
    if not isinstance(found, BlockFlow):
        return move(mask, found)
    scale, block = WIDTH / found.grid_shape[1], found.block_px
    x, y = (X + 0.5) / scale / block - 0.5, (Y + 0.5) / scale / block - 0.5
    total = np.zeros_like(mask)
    for row, row_weight in ((np.floor(y), 1 - y % 1), (np.floor(y) + 1, y % 1)):
        for col, col_weight in ((np.floor(x), 1 - x % 1), (np.floor(x) + 1, x % 1)):
            vectors = flow.sample(found, (col + 0.5) * block, (row + 0.5) * block) * np.float32(scale)
            total += row_weight * col_weight * move(mask, vectors)
    return total


def late(
    flows: list[BlockFlow | DENSE], truth: F32, delay: Delay, carry: Callable[..., F32]
) -> tuple[float, float]:
    """Mean (IoU, BF1). `flows[t]` leads from frame t + 1 to frame t."""
    ious, edges = [], []
    newest, mask = 0, truth[0]
    for index in range(len(truth)):
        source = max(0, delay.every * ((index - delay.lag) // delay.every))
        if source != newest:
            newest, mask = source, truth[source]
            for step in range(source, index - 1):
                mask = carry(flows[step], mask)
        if index > source:
            mask = carry(flows[index - 1], mask)
        p, g = mask >= 0.5, truth[index] >= 0.5
        ious.append(float(metrics.iou(p[None], g[None])[0]))
        edges.append(metrics.boundary_f1(p, g))
    return float(np.mean(ious)), float(np.mean(edges))


def methods() -> Iterator[Method]:
    yield Method("hold", still)
    for width, block_px in ((256, 8), (256, 4), (256, 2), (160, 4), (160, 2)):
        settings = FlowSettings(block_px=block_px)  # type: ignore[arg-type]
        yield Method(f"{width} wide, {block_px} px", Ours(width, settings))
        if width == WIDTH and block_px < 8:
            yield Method(f"{width} wide, {block_px} px, band", Ours(width, settings, band=True))
    for levels, search in ((3, 5), (2, 6), (2, 12)):
        settings = FlowSettings(levels=levels, search_px=search)
        yield Method(f"256 wide, 4 px, levels {levels}, search {search}", Ours(WIDTH, settings))
    yield Method("256 wide, 4 px, no hint", Ours(WIDTH, FlowSettings(), hinted=False))
    for name, preset in (
        ("ultrafast", cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
        ("medium", cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    ):
        for width in (160, 256):
            if (name, width) != ("medium", 160):
                yield Method(f"DIS {name}, {width} wide", Dis(preset, width))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sequences", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--clip", action="append", default=[], help="only clips of this pattern (repeatable)")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    interpreter = Interpreter(str(arguments.model), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()

    rows, invoke_ms = list(methods()), []
    for sequence in sequences.find(arguments.sequences, tuple(arguments.clip)):
        lumas, truths = [], []
        for sample in sequence.samples():
            lumas.append(cv2.resize(sample.picture.y, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
            truths.append(cv2.resize(sample.truth, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
        truth = np.stack(truths).astype(np.float32) / 255
        for row in rows:
            row.flows.clear()
        for index in range(1, len(lumas)):
            begin = time.perf_counter()
            interpreter.invoke()
            invoke_ms.append((time.perf_counter() - begin) * 1e3)
            near_edge = band_around((truth[index - 1] >= 0.5).astype(np.uint8))
            for row in rows:
                begin = time.perf_counter()
                row.flows.append(row.calculate(lumas[index - 1], lumas[index], near_edge))
                row.cost_ms.append((time.perf_counter() - begin) * 1e3)
                row.ratios.append(row.cost_ms[-1] / invoke_ms[-1])
        for row in rows:
            row.late.append([late(row.flows, truth, delay, own) for delay in DELAYS])
            row.late_overlap.append([late(row.flows, truth, delay, overlapped) for delay in DELAYS])

    print(f"one invoke: {np.median(invoke_ms):.2f} ms (median of {len(invoke_ms)})\n")
    heads = " | ".join(f"{kind} ({delay})" for kind in ("own", "overlap") for delay in DELAYS)
    print(f"| flow | ms | / invoke | {heads} |\n|---|---|---|{'---|' * 2 * len(DELAYS)}")
    for row in rows:
        figures = [*np.mean(row.late, 0), *np.mean(row.late_overlap, 0)]
        cells = " | ".join(f"{iou:.3f}, {edge:.3f}" for iou, edge in figures)
        print(f"| {row.name} | {np.median(row.cost_ms):.2f} | {np.median(row.ratios):.2f} | {cells} |")


if __name__ == "__main__":
    main()
