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
STILL = WINDOW * WINDOW
APART = Q // 2
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

    def attempt(self, vectors: I64, extra: int, where: NDArray[np.bool_] | None = None) -> None:
        vectors = np.clip(vectors, self.low, self.high)
        cost = np.abs(self.at(self.pair.previous, vectors) - self.patch).sum((1, 2)) + extra
        better = cost < self.cost
        if where is not None:
            better &= where
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


def _plan(pairs: list[_Pair], block: int) -> list[_Stage]:
    """One stage for each level, finest first."""
    stages = []
    for level, pair in enumerate(pairs):
        step = 8 if level == 0 and block == 8 else 4
        rows, cols = (-(-(side - 2 * BORDER) // step) for side in pair.current.shape)
        stages.append(_Stage(level, step, rows, cols))
    return stages


def _parents(count: int, step: int, scale: int, parent_step: int, parent_count: int) -> tuple[I64, I64]:
    centre2, size2 = (2 * np.arange(count) + 1) * step, 2 * parent_step * scale
    near = centre2 // size2
    far = np.where(centre2 % size2 < size2 // 2, near - 1, near + 1)
    return np.clip(near, 0, parent_count - 1), np.clip(far, 0, parent_count - 1)


def _asked(grid: NDArray[Any], stage: _Stage, block: int) -> I64:
    """What the asked grid holds at the centre of each block of a stage."""

    def index(count: int, asked: int) -> I64:
        centre2 = (2 * np.arange(count, dtype=np.int64) + 1) * stage.step << stage.level
        return np.clip(centre2 // (2 * block), 0, asked - 1)

    picked: I64 = grid[index(stage.rows, grid.shape[0])[:, None], index(stage.cols, grid.shape[1])]
    return picked.reshape(stage.rows * stage.cols, -1).astype(np.int64)


def _top(pair: _Pair, stage: _Stage, search: int, penalty: int) -> I64:
    windows = pair.windows(stage)
    windows.attempt(np.zeros_like(windows.best), 0)
    moving = windows.cost > STILL
    for dy in range(-search, search + 1):
        for dx in range(-search, search + 1):
            windows.attempt(np.full_like(windows.best, (dx, dy)), penalty * (abs(dx) + abs(dy)), moving)
    found: I64 = windows.best.reshape(stage.rows, stage.cols, 2)
    return found


def _refine(
    pair: _Pair,
    stage: _Stage,
    coarse: _Stage,
    vectors: I64,
    hint: I16 | None,
    active: U8 | None,
    block: int,
    penalty: int,
) -> I64:
    windows = pair.windows(stage)
    ys = _parents(stage.rows, stage.step, 2, coarse.step, coarse.rows)
    xs = _parents(stage.cols, stage.step, 2, coarse.step, coarse.cols)
    windows.attempt(np.zeros_like(windows.best), 0)
    moving = windows.cost > STILL
    for y in ys:
        for x in xs:
            windows.attempt(2 * vectors[y[:, None], x].reshape(-1, 2), penalty, moving)
    if hint is not None:
        shift = 4 + stage.level
        windows.attempt((_asked(hint, stage, block) + (1 << (shift - 1))) >> shift, penalty, moving)
    centre = windows.best.copy()
    moving &= windows.cost > STILL
    if active is not None and stage.level == 0:
        moving &= _asked(active[:, :, None], stage, block)[:, 0] > 0
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dx or dy:
                windows.attempt(centre + np.array((dx, dy)), 2 * penalty, moving)
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


def _sad_bilinear(windows: _Windows, q: I64, part_of_window: slice = slice(None)) -> I64:
    whole, part = q // Q, q % Q
    p = windows.at(windows.pair.previous, whole, rim=1)[:, 1:, 1:]
    fx, fy = part[:, 0, None, None], part[:, 1, None, None]
    top = (Q - fx) * p[:, :-1, :-1] + fx * p[:, :-1, 1:]
    bottom = (Q - fx) * p[:, 1:, :-1] + fx * p[:, 1:, 1:]
    value = ((Q - fy) * top + fy * bottom + 128) >> 8
    miss = np.abs(value - windows.patch)[:, part_of_window, part_of_window]
    sums: I64 = miss.sum((1, 2))
    return sums


@dataclass(frozen=True)
class _Found:
    vectors: I64
    """Shape: (n, 2), 1/16 pixel."""
    residual: F32
    texture: F32

    def confidence(self) -> F32:
        moved = np.minimum(np.abs(self.vectors).max(-1).astype(np.float32) / np.float32(Q), 1)
        trust = self.texture / (self.texture + TEXTURE_SCALE)
        likely: F32 = (1 - (1 - trust) * moved) / (1 + (self.residual / RESIDUAL_SCALE) ** 2)
        return likely


def _divide(pair: _Pair, stage: _Stage, found: _Found, rows: int, cols: int, active: U8 | None) -> _Found:
    y, x = np.mgrid[0:rows, 0:cols] * 2 - 3
    windows = _Windows(pair, x.ravel(), y.ravel())
    ys = _parents(rows, 2, 1, stage.step, stage.rows)
    xs = _parents(cols, 2, 1, stage.step, stage.cols)
    near = [(r[:, None] * stage.cols + c).ravel() for r in ys for c in xs]
    vectors = found.vectors[near[0]]
    residual, texture = found.residual[near[0]], found.texture[near[0]]
    spread = np.max([np.abs(found.vectors[n] - vectors).max(-1) for n in near], 0)
    choose = spread > APART
    if active is not None:
        choose &= active.ravel() > 0
    least = np.full(len(vectors), np.iinfo(np.int64).max)
    for n in near:
        candidate = np.clip(found.vectors[n], Q * windows.low, Q * windows.high)
        sums = _sad_bilinear(windows, candidate, slice(2, 6))
        better = choose & (sums < least)
        least[better] = sums[better]
        vectors[better] = candidate[better]
        residual[better] = sums[better].astype(np.float32) / np.float32(16)
        texture[better] = found.texture[n][better]
    return _Found(vectors, residual, texture)


def estimate(
    previous: U8,
    current: U8,
    hint: I16 | None,
    active: U8 | None,
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
    stages = _plan(pairs, block)
    found = _top(pairs[-1], stages[-1], search, penalty)
    for coarse, stage in pairwise(reversed(stages)):
        found = _refine(pairs[stage.level], stage, coarse, found, hint, active, block, penalty)
    windows = pairs[0].windows(stages[0])
    q, texture = _subpixel(windows, found.reshape(-1, 2))
    q = np.clip(q, Q * windows.low, Q * windows.high)
    measured = _sad_bilinear(windows, q).astype(np.float32) / np.float32(WINDOW * WINDOW)
    result = _Found(q, measured, texture)
    if block < stages[0].step:
        rows, cols = residual.shape
        result = _divide(pairs[0], stages[0], result, rows, cols, active)
    vectors[:] = (result.vectors.astype(np.float32) / np.float32(Q)).reshape(vectors.shape)
    residual[:] = result.residual.reshape(residual.shape)
    confidence[:] = result.confidence().reshape(residual.shape)
