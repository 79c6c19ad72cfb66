"""The block matcher of _flow.c in NumPy: the same integers, used where no compiler was.

One call of `estimate` costs about a hundred times the native one. Names follow _flow.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_seg.types import F32, U8

I16 = NDArray[np.int16]
I64 = NDArray[Any]  # np.int64, spelt loosely: NumPy's stubs lose the type in arithmetic

WINDOW = 8
BORDER = 18
SIDE_MIN = 16
Q = 16
FLAT = WINDOW * WINDOW * 4 * 4
STEP_MAX = Q * 3 // 4
RESIDUAL_SCALE = np.float32(8.0)
TEXTURE_SCALE = np.float32(4.0)


@dataclass(frozen=True)
class _Stage:
    level: int
    step: int
    rows: int
    cols: int


@dataclass(frozen=True)
class _Pair:
    """One level of both pictures, with a replicated border."""

    previous: U8
    current: U8

    def windows(self, stage: _Stage) -> _Windows:
        margin = (WINDOW - stage.step) // 2
        y, x = np.mgrid[0 : stage.rows, 0 : stage.cols] * stage.step - margin
        return _Windows(self, x.ravel(), y.ravel())


class _Windows:
    """All windows of one stage, matched at once."""

    def __init__(self, pair: _Pair, x: I64, y: I64) -> None:
        self.pair, self.x, self.y = pair, x, y
        height, width = pair.current.shape[0] - 2 * BORDER, pair.current.shape[1] - 2 * BORDER
        self.low = np.stack([-BORDER + 2 - x, -BORDER + 2 - y], -1)
        self.high = np.stack([width + BORDER - WINDOW - 2 - x, height + BORDER - WINDOW - 2 - y], -1)
        self.patch = self.at(pair.current, np.zeros_like(self.low))
        self.best = np.zeros_like(self.low)
        self.cost = np.full(len(x), np.iinfo(np.int32).max, np.int64)

    def at(self, picture: U8, vectors: I64, rim: int = 0) -> I64:
        """The windows at these vectors, each with `rim` pixels around. Shape: (n, 8 + 2 rim, 8 + 2 rim)."""
        span = np.arange(-rim, WINDOW + rim) + BORDER
        rows = (self.y + vectors[:, 1])[:, None] + span
        cols = (self.x + vectors[:, 0])[:, None] + span
        picked: I64 = picture[rows[:, :, None], cols[:, None, :]].astype(np.int64)
        return picked

    def attempt(self, vectors: I64, extra: int) -> None:
        vectors = np.clip(vectors, self.low, self.high)
        cost = np.abs(self.at(self.pair.previous, vectors) - self.patch).sum((1, 2)) + extra
        better = cost < self.cost
        self.cost[better] = cost[better]
        self.best[better] = vectors[better]


def _halve(picture: U8) -> U8:
    height, width = picture.shape
    even = np.pad(picture, ((0, height % 2), (0, width % 2)), "edge").astype(np.uint16)
    mean: U8 = ((even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2] + 2) >> 2).astype(
        np.uint8
    )
    return mean


def _pyramid(previous: U8, current: U8, levels: int) -> list[_Pair]:
    pairs: list[_Pair] = []
    while len(pairs) < levels and (not pairs or min(current.shape) >= SIDE_MIN):
        pairs.append(_Pair(np.pad(previous, BORDER, "edge"), np.pad(current, BORDER, "edge")))
        previous, current = _halve(previous), _halve(current)
    return pairs


def _plan(height: int, width: int, count: int, block: int) -> list[_Stage]:
    stages = []
    for level in reversed(range(count)):
        h, w = -(-height // (1 << level)), -(-width // (1 << level))
        for step in [4] if level else {8: [8], 4: [4], 2: [4, 2]}[block]:
            stages.append(_Stage(level, step, -(-h // step), -(-w // step)))
    return stages


def _parents(count: int, step: int, scale: int, parent_step: int, parent_count: int) -> tuple[I64, I64]:
    centre2, size2 = (2 * np.arange(count) + 1) * step, 2 * parent_step * scale
    near = centre2 // size2
    far = np.where(centre2 % size2 < size2 // 2, near - 1, near + 1)
    return np.clip(near, 0, parent_count - 1), np.clip(far, 0, parent_count - 1)


def _hint(hint: I16, stage: _Stage, finest: _Stage) -> I64:
    def index(count: int, finest_count: int) -> I64:
        centre2 = (2 * np.arange(count, dtype=np.int64) + 1) * stage.step << stage.level
        return np.clip(centre2 // (2 * finest.step), 0, finest_count - 1)

    grid = hint.reshape(finest.rows, finest.cols, 2).astype(np.int64)
    shift = 4 + stage.level
    picked = grid[index(stage.rows, finest.rows)[:, None], index(stage.cols, finest.cols)]
    rounded: I64 = (picked.reshape(-1, 2) + (1 << (shift - 1))) >> shift
    return rounded


def _top(pair: _Pair, stage: _Stage, search: int, penalty: int) -> I64:
    windows = pair.windows(stage)
    windows.attempt(np.zeros_like(windows.best), 0)
    for dy in range(-search, search + 1):
        for dx in range(-search, search + 1):
            windows.attempt(np.full_like(windows.best, (dx, dy)), penalty * (abs(dx) + abs(dy)))
    found: I64 = windows.best.reshape(stage.rows, stage.cols, 2)
    return found


def _refine(pair: _Pair, stage: _Stage, coarse: _Stage, vectors: I64, hint: I64 | None, penalty: int) -> I64:
    windows = pair.windows(stage)
    scale = 1 << (coarse.level - stage.level)
    ys = _parents(stage.rows, stage.step, scale, coarse.step, coarse.rows)
    xs = _parents(stage.cols, stage.step, scale, coarse.step, coarse.cols)
    windows.attempt(np.zeros_like(windows.best), 0)
    for y in ys:
        for x in xs:
            windows.attempt(scale * vectors[y[:, None], x].reshape(-1, 2), penalty)
    if hint is not None:
        windows.attempt(hint, penalty)
    centre = windows.best.copy()
    if scale > 1:
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if dx or dy:
                    windows.attempt(centre + np.array((dx, dy)), 2 * penalty)
    found: I64 = windows.best.reshape(stage.rows, stage.cols, 2)
    return found


def _subpixel(windows: _Windows, vectors: I64) -> tuple[I64, F32]:
    around = windows.at(windows.pair.previous, vectors, rim=1)
    gx = around[:, 1:-1, 2:] - around[:, 1:-1, :-2]
    gy = around[:, 2:, 1:-1] - around[:, :-2, 1:-1]
    gt = around[:, 1:-1, 1:-1] - windows.patch
    xx, xy, yy, xt, yt = ((a * b).sum((1, 2)) for a, b in ((gx, gx), (gx, gy), (gy, gy), (gx, gt), (gy, gt)))
    a, b, c = xx.astype(np.float32), xy.astype(np.float32), yy.astype(np.float32)
    smaller = np.float32(0.5) * (a + c - np.sqrt((a - c) * (a - c) + np.float32(4) * b * b))
    xx, yy = xx + FLAT, yy + FLAT
    det = xx * yy - xy * xy
    step = np.stack([xy * yt - yy * xt, xy * xt - xx * yt], -1)
    step = (4 * Q * step + det[:, None]) // (2 * det[:, None])
    texture = np.maximum(smaller, 0) / np.float32(4 * WINDOW * WINDOW)
    return vectors * Q + np.clip(step, -STEP_MAX, STEP_MAX), texture


def _median3x3(vectors: I64) -> I64:
    rows, cols = vectors.shape[:2]
    padded = np.pad(vectors, ((1, 1), (1, 1), (0, 0)), "edge")
    around = [padded[y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
    middle: I64 = np.sort(around, 0)[4]
    return middle


def _sad_bilinear(windows: _Windows, q: I64) -> I64:
    whole, part = q // Q, q % Q
    p = windows.at(windows.pair.previous, whole, rim=1)[:, 1:, 1:]
    fx, fy = part[:, 0, None, None], part[:, 1, None, None]
    top = (Q - fx) * p[:, :-1, :-1] + fx * p[:, :-1, 1:]
    bottom = (Q - fx) * p[:, 1:, :-1] + fx * p[:, 1:, 1:]
    value = ((Q - fy) * top + fy * bottom + 128) >> 8
    sums: I64 = np.abs(value - windows.patch).sum((1, 2))
    return sums


def estimate(
    previous: U8,
    current: U8,
    hint: I16 | None,
    vectors: F32,
    residual: F32,
    confidence: F32,
    block: int,
    levels: int,
    search: int,
    penalty: int,
) -> None:
    """Fills vectors, residual and confidence; see edge_seg.flow.estimate."""
    pairs = _pyramid(previous, current, levels)
    stages = _plan(current.shape[0], current.shape[1], len(pairs), block)
    finest = stages[-1]
    found = _top(pairs[-1], stages[0], search, penalty)
    for coarse, stage in pairwise(stages):
        start = None if hint is None else _hint(hint, stage, finest)
        found = _refine(pairs[stage.level], stage, coarse, found, start, penalty)
    windows = pairs[0].windows(finest)
    q, texture = _subpixel(windows, found.reshape(-1, 2))
    q = _median3x3(q.reshape(found.shape)).reshape(-1, 2)
    q = np.clip(q, Q * windows.low, Q * windows.high)
    vectors[:] = (q.astype(np.float32) / np.float32(Q)).reshape(vectors.shape)
    residual[:] = (_sad_bilinear(windows, q) / np.float32(WINDOW * WINDOW)).reshape(residual.shape)
    moved = np.minimum(np.abs(vectors).max(-1), 1)
    trust = (texture / (texture + TEXTURE_SCALE)).reshape(residual.shape)
    confidence[:] = (1 - (1 - trust) * moved) / (1 + (residual / RESIDUAL_SCALE) ** 2)
