"""The block matcher of _flow.c in NumPy: the same integers, used where no compiler was.

One call of `estimate` costs about a hundred times the native one. Names follow _flow.c and its headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_seg.types import F32, U8

I16 = NDArray[np.int16]
I64 = NDArray[Any]  # np.int64, spelt loosely: NumPy's stubs lose the type in arithmetic

WINDOW = 8
BORDER = 18
LEVELS_MAX = 4
SIDE_MIN = 16
Q = 16
FLAT = WINDOW * WINDOW * 2 * 2
STEP_MAX = Q * 3 // 4
HAIR = 1
STILL = 2 * WINDOW * WINDOW
MUCH_BETTER = 2
APART = Q // 2
ALIKE = Q // 4


def _sides(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of each level."""
    if not (1 <= height <= 2048 and 1 <= width <= 2048):
        raise ValueError(f"luma grid: 1 to 2048 pixels a side, got {width}x{height}")
    sides = [(height, width)]
    while len(sides) < LEVELS_MAX:
        height, width = -(-height // 2), -(-width // 2)
        if min(height, width) < SIDE_MIN:
            break
        sides.append((height, width))
    return sides


def _bytes(height: int, width: int) -> int:
    return (height + 2 * BORDER - 1) * 2 * (width + 2 * BORDER)


def _halve(picture: U8) -> U8:
    height, width = picture.shape
    even = np.pad(picture, ((0, height % 2), (0, width % 2)), "edge").astype(np.uint16)
    mean: U8 = ((even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2] + 2) >> 2).astype(
        np.uint8
    )
    return mean


def prepare(picture: U8) -> tuple[bytes, float]:
    """The picture's levels, and the mean of the smallest; see edge_seg.flow.prepare."""
    levels = []
    for index, _ in enumerate(_sides(*picture.shape)):
        if index:
            picture = _halve(picture)
        padded = np.pad(picture, BORDER, "edge")
        levels.append(np.stack([padded[:-1], padded[1:]], -1).tobytes())
    return b"".join(levels), float(picture.sum(dtype=np.int64)) / picture.size


def _levels(memory: bytes, height: int, width: int) -> list[U8]:
    """The levels in `memory`, each with its replicated border."""
    levels, offset = [], 0
    for side in _sides(height, width):
        pairs = np.frombuffer(memory, np.uint8, _bytes(*side), offset).reshape(-1, side[1] + 2 * BORDER, 2)
        levels.append(np.concatenate([pairs[:, :, 0], pairs[-1:, :, 1]]))
        offset += _bytes(*side)
    return levels


@dataclass(frozen=True)
class _Pair:
    """One level of both pictures, with a replicated border."""

    previous: U8
    current: U8
    level: int

    def count(self, block: int) -> tuple[int, int]:
        """(rows, cols) of blocks."""
        rows, cols = (-(-(side - 2 * BORDER) // block) for side in self.current.shape)
        return rows, cols

    def windows(self, block: int) -> _Windows:
        """A window around the centre of each block."""
        rows, cols = self.count(block)
        y, x = np.mgrid[0:rows, 0:cols] * block + (block - WINDOW) // 2
        return _Windows(self, x.ravel(), y.ravel())


class _Windows:
    """All windows of one stage, matched at once."""

    def __init__(self, pair: _Pair, x: I64, y: I64) -> None:
        self.pair, self.x, self.y = pair, x, y
        height, width = (side - 2 * BORDER for side in pair.current.shape)
        self.low = np.stack([-BORDER + 2 - x, -BORDER + 2 - y], -1)
        self.high = np.stack([width + BORDER - WINDOW - 2 - x, height + BORDER - WINDOW - 2 - y], -1)
        self.patch = self.at(pair.current, np.zeros_like(self.low))
        self.best = np.zeros_like(self.low)
        self.cost = self.costs(self.best)

    def at(self, picture: U8, vectors: I64, rim: int = 0) -> I64:
        """The windows at these vectors, each with `rim` pixels around. Shape: (n, 8 + 2 rim, 8 + 2 rim)."""
        span = np.arange(-rim, WINDOW + rim) + BORDER
        rows = (self.y + vectors[:, 1])[:, None] + span
        cols = (self.x + vectors[:, 0])[:, None] + span
        picked: I64 = picture[rows[:, :, None], cols[:, None, :]].astype(np.int64)
        return picked

    def costs(self, vectors: I64) -> I64:
        summed: I64 = np.abs(self.at(self.pair.previous, vectors) - self.patch).sum((1, 2))
        return summed

    def attempt(self, vectors: I64, extra: int, where: NDArray[np.bool_]) -> None:
        vectors = np.clip(vectors, self.low, self.high)
        cost = self.costs(vectors) + extra
        better = where & (cost < self.cost)
        self.cost[better] = cost[better]
        self.best[better] = vectors[better]

    def around(self, extra: int, where: NDArray[np.bool_]) -> None:
        """The eight neighbours of the best vector."""
        centre = self.best.copy()
        where = where & (centre > self.low).all(-1) & (centre < self.high).all(-1)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if dx or dy:
                    self.attempt(centre + np.array((dx, dy)), extra, where)

    def search(self, search: int, penalty: int, where: NDArray[np.bool_]) -> None:
        """All vectors within `search` pixels along each axis, the farther the dearer."""
        for dy in range(-search, search + 1):
            for dx in range(-search, search + 1):
                vectors = np.full_like(self.best, (dx, dy))
                inside = (vectors >= self.low).all(-1) & (vectors <= self.high).all(-1)
                self.attempt(vectors, penalty * (abs(dx) + abs(dy)), where & inside)


def _parents(count: int, parent_count: int) -> tuple[I64, I64]:
    """The two blocks of twice the size whose centres enclose that of each of `count` blocks, along one axis."""
    block = np.arange(count)
    far = np.where(block % 2, block // 2 + 1, block // 2 - 1)
    return np.clip(block // 2, 0, parent_count - 1), np.clip(far, 0, parent_count - 1)


def _hint_at(hint: I16, pair: _Pair, block: int) -> I64:
    """The hint at the centre of each block of a level, in whole pixels of that level."""

    def index(count: int, asked: int) -> I64:
        centre = (2 * np.arange(count, dtype=np.int64) + 1) * (WINDOW // 2) << pair.level
        return np.clip(centre // block, 0, asked - 1)

    rows, cols = pair.count(WINDOW)
    picked = hint[index(rows, hint.shape[0])[:, None], index(cols, hint.shape[1])].astype(np.int64)
    vectors: I64 = (picked.reshape(-1, 2) + (Q // 2 << pair.level)) >> (4 + pair.level)
    return vectors


def _top(pair: _Pair, hint: I16 | None, block: int, search: int, penalty: int) -> I64:
    windows = pair.windows(WINDOW)
    still = windows.cost.copy()
    unknown = still > STILL
    if hint is not None:
        windows.attempt(_hint_at(hint, pair, block), penalty, unknown)
        windows.around(2 * penalty, unknown & (windows.cost < still))
        unknown &= ~((windows.cost < still) & (MUCH_BETTER * windows.cost <= still))
    windows.search(search, penalty, unknown)
    found: I64 = windows.best.reshape(*pair.count(WINDOW), 2)
    return found


def _is_active(active: U8, pair: _Pair, block: int) -> NDArray[np.bool_]:
    """Whether precision is wanted anywhere in each block of the finest level."""
    rows, cols = pair.count(WINDOW)
    n = WINDOW // block
    padded = np.zeros((rows * n, cols * n), np.bool_)
    padded[: active.shape[0], : active.shape[1]] = active > 0
    wanted: NDArray[np.bool_] = padded.reshape(rows, n, cols, n).any((1, 3)).ravel()
    return wanted


def _refine(pair: _Pair, coarse: I64, hint: I16 | None, active: U8 | None, block: int, penalty: int) -> I64:
    windows = pair.windows(WINDOW)
    rows, cols = pair.count(WINDOW)
    moving = windows.cost > STILL
    for y in _parents(rows, coarse.shape[0]):
        for x in _parents(cols, coarse.shape[1]):
            windows.attempt(2 * coarse[y[:, None], x].reshape(-1, 2), penalty, moving)
    if hint is not None:
        windows.attempt(_hint_at(hint, pair, block), penalty, moving)
    moving &= windows.cost > STILL
    if active is not None and pair.level == 0:
        moving &= _is_active(active, pair, block)
    windows.around(2 * penalty, moving)
    found: I64 = windows.best.reshape(rows, cols, 2)
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
    steps = vectors * Q + np.clip(step, -STEP_MAX, STEP_MAX)
    steps[(np.abs(steps) <= HAIR).all(-1)] = 0
    return steps, texture


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
    """Shape: (rows, cols, 2), 1/16 pixel."""
    residual: F32
    texture: F32


def _divide(pair: _Pair, found: _Found, block: int, active: U8 | None) -> _Found:
    """From blocks to blocks of half the side, `block` pixels."""
    rows, cols = pair.count(block)
    windows = pair.windows(block)
    ys, xs = _parents(rows, found.residual.shape[0]), _parents(cols, found.residual.shape[1])
    near = [(y[:, None], x) for y in ys for x in xs]
    around = np.stack([found.vectors[n].reshape(-1, 2) for n in near])
    vectors = around[0].copy()
    residual, texture = found.residual[near[0]].ravel(), found.texture[near[0]].ravel()
    choose = np.abs(around - vectors).max((0, 2)) > APART
    if active is not None:
        choose &= active.ravel() > 0
    part = slice(1, 7) if block == 4 else slice(2, 6)
    area = np.float32((part.stop - part.start) ** 2)
    least = np.full(len(vectors), np.iinfo(np.int64).max)
    tried: list[tuple[NDArray[np.bool_], I64]] = []
    for n, candidate in zip(near, around, strict=True):
        candidate = np.clip(candidate, Q * windows.low, Q * windows.high)
        fresh = choose.copy()
        for known, other in tried:
            fresh &= ~(known & (np.abs(candidate - other).max(-1) <= ALIKE))
        tried.append((fresh, candidate))
        sums = _sad_bilinear(windows, candidate, part)
        better = fresh & (sums < least)
        least[better] = sums[better]
        vectors[better] = candidate[better]
        residual[better] = sums[better].astype(np.float32) / area
        texture[better] = found.texture[n].ravel()[better]
    return _Found(vectors.reshape(rows, cols, 2), residual.reshape(rows, cols), texture.reshape(rows, cols))


def estimate(
    previous: bytes,
    current: bytes,
    height: int,
    width: int,
    hint: I16 | None,
    active: U8 | None,
    steps: I16,
    residual: F32,
    texture: F32,
    block: int,
    levels: int,
    search: int,
    penalty: int,
) -> float:
    """Fills steps, residual and texture from what `prepare` returned, and returns the mean residual; see
    edge_seg.flow.estimate."""
    before, now = _levels(previous, height, width)[:levels], _levels(current, height, width)[:levels]
    if np.array_equal(before[0], now[0]):
        steps[:], residual[:], texture[:] = 0, 0, 0
        return 0.0
    pairs = [_Pair(a, b, level) for level, (a, b) in enumerate(zip(before, now, strict=True))]
    found = _top(pairs[-1], hint, block, search, penalty)
    for pair in reversed(pairs[:-1]):
        found = _refine(pair, found, hint, active, block, penalty)
    finest = pairs[0]
    windows = finest.windows(WINDOW)
    q, textures = _subpixel(windows, found.reshape(-1, 2))
    q = np.clip(q, Q * windows.low, Q * windows.high)
    measured = _sad_bilinear(windows, q).astype(np.float32) / np.float32(WINDOW * WINDOW)
    rows, cols = finest.count(WINDOW)
    result = _Found(q.reshape(rows, cols, 2), measured.reshape(rows, cols), textures.reshape(rows, cols))
    for side in (4, 2):
        if side >= block:
            result = _divide(finest, result, side, active if side == block else None)
    steps[:] = result.vectors
    residual[:], texture[:] = result.residual, result.texture
    return float(residual.mean(dtype=np.float64))
