"""What edge_seg/_fusion.c computes, in NumPy: the readable form, and the one used where no compiler was.

Everything is on one grid of pixels, (rows, cols). A mask element is a probability x in [0, 1] with an error
variance P (in squared probability).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_seg.types import F32, U8

Picture = tuple[U8, U8, U8]
"""Luma and chroma, each (rows, cols), uint8. Without chroma: any planes, and `chroma` = 0."""
Taps = tuple[tuple[int, int, float], ...]

RADIUS = 2
"""Reach of the window when a mask is carried."""
DIAMOND = tuple(
    (y, x, 1 / 32 if RADIUS in (abs(y), abs(x)) else 1 / 16)
    for y in range(-RADIUS, RADIUS + 1)
    for x in range(abs(y) - RADIUS, RADIUS - abs(y) + 1)
)
"""That window: (down, right, weight)."""
SCATTER = tuple(
    (y, x, 1 / 16)
    for y, x in (
        (-4, -1), (-3, -3), (-3, 3), (-2, 1), (-1, -2), (-1, 4), (0, 0),
        (1, -4), (1, 2), (2, -1), (3, -3), (3, 3), (4, 1),
    )
)  # fmt: skip
"""The window when the target mask is smoothed: errors of the model are blobs, not single elements."""
TILE = 4
"""Side of the tiles that are treated alike, in pixels."""
PATCH = 4
"""Blocks whose side is a multiple of this are looked at in patches of this side, in pixels."""
CELL = 4
"""Side of the cells whose extremes say whether a mask differs, in pixels."""
SURE = np.float32(1 / 16)
"""Masks that differ by less count as equal when they are carried."""
CALM = np.float32(1 / 32)
"""Masks that differ by less, over 3x3, are not smoothed."""
UNSEEN = np.float32(0.05)
"""Variance for each squared pixel that a source lies outside the picture: what enters was never seen."""
SELF = np.float32(1e-3)
"""What an element counts for itself at least, where nothing around looks like it."""


def carry(
    previous: Picture,
    current: Picture,
    vectors: F32,
    residual: F32,
    block_px: int,
    probability: F32,
    variance: F32,
    out_probability: F32,
    out_variance: F32,
    like: float,
    chroma: float,
    exact: float,
    drift: float,
    misfit: float,
) -> None:
    """Moves (probability, variance) from the grid of `previous` to that of `current` along the vectors.

    What differs from an element by `like` code values of luma, or by less luma and some chroma (whose squares
    count `chroma` times; 0: not at all) is not like it. An element whose luma is not found where its vector
    points (difference against `exact` code values) takes the mean of the elements around that place that
    look like it, instead. The variance grows by drift + misfit * (mean luma difference after the move)^2, and
    for sources outside the picture. Tiles that only equal elements can come to are copied, and take the luma
    difference from the `residual` of their block.
    """
    rows, cols = current[0].shape
    x, y = _sample_points(vectors, block_px, rows, cols)
    own = [plane.astype(np.float32) for plane in current]
    source = [_bilinear(plane.astype(np.float32), x, y) for plane in previous]
    moved = _bilinear(probability, x, y)
    difference = np.abs(own[0] - source[0])
    alike = _mean_of_alike(own, source, moved, like, chroma, DIAMOND)
    share = difference * difference
    share /= share + np.float32(exact * exact)
    mismatch = _box3(difference)
    growth = np.float32(drift) + np.float32(misfit) * mismatch * mismatch
    from_x, from_y, tile_far, tile_residual = _tile_sources(vectors, residual, block_px, rows, cols)
    tile_growth = np.float32(drift) + np.float32(misfit) * tile_residual * tile_residual
    busy = _tiles_that_differ(probability, vectors, block_px)
    out_probability[:] = np.where(busy, moved + share * (alike - moved), probability[from_y, from_x])
    far = _outside(x, y, rows, cols)
    out_variance[:] = np.where(
        busy,
        _bilinear(variance, x, y) + growth + UNSEEN * far * far,
        variance[from_y, from_x] + tile_growth + UNSEEN * tile_far * tile_far,
    )


def uncertainty(measured: F32, variance: F32, noise: float, noise_floor: float) -> None:
    """Writes the variance of a mask of the model: that of a coin with its probabilities, and a floor."""
    variance[:] = np.float32(noise) * (np.float32(noise_floor) + 4 * (measured * (1 - measured)))


def evidence(
    picture: Picture,
    plate: Picture,
    seen: U8,
    probability: F32,
    measured: F32,
    measured_variance: F32,
    sums: NDArray[np.float64],
    chroma: float,
    noise: float,
) -> None:
    """What the picture says of the measured mask when it is compared with the background as it was seen before.

    Changes in place: `measured` and its variance (`noise` as in `uncertainty`); the background, `plate` and
    `seen` (for how many frames each element was seen, uint8), where `measured` shows nobody; and `sums`, (4,):
    differences and weights of what is background by `probability`, then of what is person.

    An element differs by half if its squared difference of colour (chroma counts `chroma` times) is PLATE_EDGE
    of the greatest around it: where the outline runs, that is an element which is half person. How much a
    difference says is measured: how often it is seen where the person is, over how often where the person is
    not. So a moving camera, or light that changes, takes all weight from it. Nothing is said against a person
    where the model sees none, nor for one where nothing differs: on a still picture nothing changes.
    """
    pixels, background = ([plane.astype(np.float32) for plane in planes] for planes in (picture, plate))
    dy, du, dv = ((a - b) ** 2 for a, b in zip(pixels, background, strict=True))
    apart: F32 = dy + np.float32(chroma) * (du + dv)
    differs = apart / (apart + np.maximum(PLATE_EDGE * _greatest(apart, PLATE_REACH), PLATE_NOISE))
    known = np.minimum(seen.astype(np.float32) / PLATE_KNOWN, np.float32(1))
    in_background, in_person = ((sums[i] + PRIOR) / (sums[i + 1] + 2 * PRIOR) for i in (0, 2))
    in_person = max(in_person, in_background)
    ratio = _differing(in_person, differs) / _differing(in_background, differs)
    ratio = np.clip(ratio**6, PLATE_LEAST, PLATE_MOST)
    doubt = np.clip((measured - PLATE_EMPTY) / PLATE_EMPTY, 0, 1)
    trust = np.float32(max(0.0, 1 - PLATE_DOUBT * in_background))
    gain = (ratio - 1) * known * trust * np.where(ratio > 1, np.float32(1), doubt)
    start = np.maximum(measured, LEVEL)
    weighed = measured + start * (1 - start) * gain / (1 + start * gain)
    sums *= PLATE_MEMORY
    for i, weight in enumerate((known * (1 - probability), known * probability)):
        sums[2 * i] += (weight * differs).sum(dtype=np.float64)
        sums[2 * i + 1] += weight.sum(dtype=np.float64)
    _learn(picture, plate, seen, measured < PLATE_EMPTY, apart < PLATE_SAME)
    measured_variance += np.float32(4 * noise) * (weighed * (1 - weighed) - measured * (1 - measured))
    measured[:] = weighed


PLATE_EDGE = np.float32(0.32)
"""Share of the greatest squared difference around an element from which on it is more person than background."""
PLATE_REACH = 2
"""How far around that is, in pixels."""
PLATE_NOISE = np.float32(200)
"""Squared difference, in code values, that noise and shadows make."""
PLATE_SAME = np.float32(200)
"""Squared difference up to which the background counts as unchanged."""
PLATE_EMPTY = np.float32(0.25)
"""The background is learned where the model's mask is below. From there on, it can speak against a person."""
PLATE_KNOWN = np.float32(10)
"""After so many frames it is fully believed."""
PLATE_SEEN = 30
"""More frames than these are not counted."""
PLATE_LOSS = 2
"""Frames that it is known less long after each in which it was another: after 15 the new one is taken. So an
arm that the model overlooks is not taken for background at once."""
PLATE_MEMORY = 0.9
"""Share of the sums that is kept from frame to frame."""
PLATE_LEAST, PLATE_MOST = np.float32(0.07), np.float32(50)
"""Odds that it gives at least and at most: it overrules the model where that doubts, not where it is sure."""
PLATE_DOUBT = 3.0
"""Where one in so many elements of the background differs, it is not the background, and nothing is said."""
PRIOR = 500.0
"""Elements that are thought to have differed and not to have, before anything was seen."""
LEVEL = np.float32(1 / 256)
"""Least step of the model's masks: its 0 is not impossible."""


def _differing(rate: float, differs: F32) -> F32:
    """How likely a difference is where so many elements differ."""
    result: F32 = np.float32(rate) * differs + np.float32(1 - rate) * (1 - differs)
    return result


def _greatest(values: F32, reach: int) -> F32:
    """The greatest of the square around each element."""
    rows, cols = values.shape
    padded = np.pad(values, reach, mode="edge")
    down = np.max([padded[i : i + rows] for i in range(2 * reach + 1)], axis=0)
    result: F32 = np.max([down[:, i : i + cols] for i in range(2 * reach + 1)], axis=0)
    return result


def _learn(
    picture: Picture, plate: Picture, seen: U8, empty: NDArray[np.bool_], same: NDArray[np.bool_]
) -> None:
    """One step towards the picture where nobody is and it is the same; anew where it was another for long."""
    nearer, anew = empty & same, empty & ~same & (seen <= PLATE_LOSS)
    for now, known in zip(picture, plate, strict=True):
        step = (now > known).astype(np.int8) - (now < known)
        known[:] = np.where(anew, now, np.where(nearer, known + step, known))
    longer, shorter = np.minimum(seen + 1, PLATE_SEEN), np.where(seen > PLATE_LOSS, seen - PLATE_LOSS, 0)
    seen[:] = np.where(nearer, longer, np.where(empty, shorter, seen))


def update(
    picture: Picture,
    probability: F32,
    variance: F32,
    measured: F32,
    measured_variance: F32,
    out_probability: F32,
    out_variance: F32,
    like: float,
    chroma: float,
    repeat: float,
) -> None:
    """One step of a scalar Kalman filter for each element, then smoothing along the edges of the picture.

    Smoothed is only where the two masks disagree (the mean over 3x3): by CALM not at all, by `repeat` more
    half of the way. What repeats itself stays as it is.
    """
    gain = variance / (variance + measured_variance)
    innovation = measured - probability
    fused = probability + gain * innovation
    pixels = [plane.astype(np.float32) for plane in picture]
    disagreement = np.maximum(_box3(np.abs(innovation)) - CALM, 0)
    share = disagreement / (disagreement + np.float32(repeat))
    alike = _mean_of_alike(pixels, pixels, fused, like, chroma, SCATTER)
    out_probability[:] = np.clip(fused + share * (alike - fused), 0, 1)
    out_variance[:] = variance - gain * variance


def similarity(previous: U8, current: U8, vectors: F32, block_px: int) -> float:
    """How far `current` is `previous`, moved: the structure of SSIM (Wang et al., 2004) over the picture.

    One pixel of each block, taken where the mean vector of its neighbourhood points: single blocks find
    something that fits in any picture, neighbours do not find it in the same direction. Near 1 for the same
    scene, lower for another.
    """
    rows, cols = current.shape
    group = max(1, GROUP_PX // block_px)
    block_rows, block_cols = np.arange(vectors.shape[0]), np.arange(vectors.shape[1])
    sums = np.add.reduceat(vectors.astype(np.float64), block_rows[::group], axis=0)
    sums = np.add.reduceat(sums, block_cols[::group], axis=1)
    counts = np.outer(np.bincount(block_rows // group), np.bincount(block_cols // group))
    mean = (sums / counts[..., None])[block_rows // group][:, block_cols // group]
    y = np.minimum(block_rows * block_px + block_px // 2, rows - 1)[:, None]
    x = np.minimum(block_cols * block_px + block_px // 2, cols - 1)[None, :]
    px = np.clip(np.floor(x + mean[..., 0] + 0.5), 0, cols - 1).astype(np.intp)
    py = np.clip(np.floor(y + mean[..., 1] + 0.5), 0, rows - 1).astype(np.intp)
    a = current[y, x].astype(np.float64)
    b = previous[py, px].astype(np.float64)
    covariance = (a * b).mean() - a.mean() * b.mean()
    return float((2 * covariance + STRUCTURE_FLOOR) / (a.var() + b.var() + STRUCTURE_FLOOR))


GROUP_PX = 16
"""Side of the neighbourhood whose vectors are averaged, in pixels."""
STRUCTURE_FLOOR = 2 * 6.0**2
"""Twice the variance, in squared code values, below which a picture counts as flat."""


def _per_tile(extreme: np.ufunc, values: F32, tile: int = TILE) -> F32:
    rows, cols = (np.arange(0, side, tile) for side in values.shape)
    result: F32 = extreme.reduceat(extreme.reduceat(values, rows, axis=0), cols, axis=1)
    return result


def _spread(tiles: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A value for each tile -> for each pixel."""
    return tiles.repeat(TILE, 0).repeat(TILE, 1)[: shape[0], : shape[1]]


def _tile_sources(
    vectors: F32, residual: F32, block_px: int, rows: int, cols: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], F32, F32]:
    """Where each pixel is copied from if its tile is: along the vector of the block in the tile's middle.
    How far that is outside the picture, and the residual of that block."""
    block_y = np.minimum((np.arange(0, rows, TILE) + TILE // 2) // block_px, vectors.shape[0] - 1)[:, None]
    block_x = np.minimum((np.arange(0, cols, TILE) + TILE // 2) // block_px, vectors.shape[1] - 1)[None, :]
    whole = np.floor(vectors[block_y, block_x] + np.float32(0.5)).astype(np.intp)
    shape = (rows, cols)
    x = np.arange(cols)[None, :] + _spread(whole[..., 0], shape)
    y = np.arange(rows)[:, None] + _spread(whole[..., 1], shape)
    far = _outside(x.astype(np.float32), y.astype(np.float32), rows, cols)
    return (
        np.clip(x, 0, cols - 1),
        np.clip(y, 0, rows - 1),
        far,
        _spread(residual[block_y, block_x], shape),
    )


def _outside(x: F32, y: F32, rows: int, cols: int) -> F32:
    """How many pixels the points lie outside the picture, both axes added."""
    result: F32 = np.abs(x - np.clip(x, 0, cols - 1)) + np.abs(y - np.clip(y, 0, rows - 1))
    return result


def _tiles_that_differ(probability: F32, vectors: F32, block_px: int) -> NDArray[np.bool_]:
    """Per pixel: whether the mask differs anywhere in the cells that the windows of its tile can reach."""
    rows, cols = probability.shape
    low, high = _per_tile(np.minimum, probability, CELL), _per_tile(np.maximum, probability, CELL)
    side = block_px if block_px % PATCH else PATCH
    patches = -(-rows // side), -(-cols // side)
    least, most = np.empty(patches, np.float32), np.empty(patches, np.float32)
    for i, j in np.ndindex(*patches):
        top, left = i * side, j * side
        dx, dy = (int(d) for d in np.floor(vectors[top // block_px, left // block_px]))
        reach = (
            _cells(top + dy, min(top + side, rows) + dy, rows),
            _cells(left + dx, min(left + side, cols) + dx, cols),
        )
        least[i, j], most[i, j] = low[reach].min(), high[reach].max()
    busy = np.zeros((-(-rows // TILE), -(-cols // TILE)), np.bool_)
    for i, j in np.ndindex(*busy.shape):
        near = _patches_near(i, rows, side), _patches_near(j, cols, side)
        busy[i, j] = most[near].max() - least[near].min() > SURE
    return _spread(busy, probability.shape)


def _cells(first: int, last: int, side: int) -> slice:
    """Those that pixels `first` to `last` lie in."""
    return slice(min(max(first, 0), side - 1) // CELL, min(max(last, 0), side - 1) // CELL + 1)


def _patches_near(tile: int, side: int, patch: int) -> slice:
    """Those that the windows of a tile reach into."""
    first, last = tile * TILE - RADIUS, tile * TILE + TILE - 1 + RADIUS
    return slice(max(first, 0) // patch, min(last, side - 1) // patch + 1)


def _sample_points(vectors: F32, block_px: int, rows: int, cols: int) -> tuple[F32, F32]:
    """Where each pixel stood: by the vector of its block, for the mean of two motions is neither."""
    y, x = np.arange(rows), np.arange(cols)
    own = vectors[(y // block_px)[:, None], x // block_px]
    return x.astype(np.float32) + own[..., 0], y.astype(np.float32)[:, None] + own[..., 1]


def _bilinear(values: F32, x: F32, y: F32) -> F32:
    """`values` at the points (x, y), those outside moved to the rim."""
    rows, cols = values.shape
    x = np.clip(x, 0, cols - 1)
    y = np.clip(y, 0, rows - 1)
    left = np.minimum(x.astype(np.intp), max(cols - 2, 0))
    top = np.minimum(y.astype(np.intp), max(rows - 2, 0))
    right = np.minimum(left + 1, cols - 1)
    bottom = np.minimum(top + 1, rows - 1)
    fx = x - left.astype(np.float32)
    fy = y - top.astype(np.float32)
    upper = values[top, left] + fx * (values[top, right] - values[top, left])
    lower = values[bottom, left] + fx * (values[bottom, right] - values[bottom, left])
    result: F32 = upper + fy * (lower - upper)
    return result


def _mean_of_alike(
    own: list[F32], window: list[F32], values: F32, like: float, chroma: float, taps: Taps
) -> F32:
    """Joint bilateral filter (Petschnigg et al., 2004) with Tukey's biweight for the difference of colour."""
    rows, cols = values.shape
    reach = max(max(abs(y), abs(x)) for y, x, _ in taps)
    padded_window = [np.pad(plane, reach, mode="edge") for plane in window]
    padded = np.pad(values, reach, mode="edge")
    total = SELF * values
    weights = np.full_like(values, SELF)
    luma_scale = np.float32(1 / (like * like))
    chroma_scale = np.float32(chroma) * luma_scale
    for down, right, share in taps:
        at = np.s_[reach + down : reach + down + rows, reach + right : reach + right + cols]
        y, u, v = ((a - b[at]) ** 2 for a, b in zip(own, padded_window, strict=True))
        alike = np.maximum(np.float32(1) - y * luma_scale - (u + v) * chroma_scale, np.float32(0))
        weight = alike * alike * np.float32(share)
        total += weight * padded[at]
        weights += weight
    result: F32 = total / weights
    return result


def _box3(values: F32) -> F32:
    padded = np.pad(values, 1, mode="edge")
    rows, cols = values.shape
    columns = padded[:, :cols] + padded[:, 1 : cols + 1] + padded[:, 2:]
    result: F32 = (columns[:rows] + columns[1 : rows + 1] + columns[2:]) * np.float32(1 / 9)
    return result
