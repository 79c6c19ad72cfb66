"""Calibration pictures: pairs of consecutive frames, varied so that few clips stand for many rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

STILLS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
FRAMES_PER_CLIP = 12
Mask = Callable[[np.ndarray], np.ndarray]


def pairs(paths: list[Path], size: tuple[int, int], count: int, mask: Mask, seed: int = 0) -> np.ndarray:
    """`count` pairs of frames from videos, pictures and folders of them. Shape: (count, 2, rows, cols, 3), RGB.

    Every second pair shows its people cut out by `mask`, the float model, smaller and in front of another
    picture: people at a distance and busy rooms are where the model is unsure, and quantisation flips it.
    """
    rng = np.random.default_rng(seed)
    sources = [pair for path in paths for pair in _read(path, size)]
    if not sources:
        raise SystemExit(f"no pictures or videos in {', '.join(map(str, paths))}")
    result = []
    for k in range(count):
        pair = sources[rng.integers(len(sources))]
        if k % 2:
            pair = _collage(pair, mask(pair), sources[rng.integers(len(sources))], rng)
        result.append(_vary(pair, rng))
    return np.array(result)


def _read(path: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    if path.is_dir():
        for child in sorted(path.rglob("*")):
            if child.is_file():
                yield from _read(child, size)
        return
    if path.suffix.lower() in STILLS:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            yield np.stack([_small(picture, size)] * 2)
        return
    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(np.linspace(0, max(0, total - 2), FRAMES_PER_CLIP).astype(int))
    before = None
    for k in range(total):
        more, picture = video.read()
        if not more:
            return
        small = _small(picture, size) if k in wanted or k - 1 in wanted else None
        if before is not None and small is not None and k - 1 in wanted:
            yield np.stack([before, small])
        before = small


def _small(bgr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.cvtColor(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)


def _collage(pair: np.ndarray, masks: np.ndarray, behind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The people of `pair`, at 0.35 to 0.9 of their size, in front of `behind`."""
    rows, cols = pair.shape[1:3]
    factor = rng.uniform(0.35, 0.9)
    right, down = rng.uniform(0, cols * (1 - factor)), rng.uniform(0, rows * (1 - factor))
    place = np.array([[factor, 0, right], [0, factor, down]])
    result = []
    for picture, mask, room in zip(pair, masks, behind, strict=True):
        alpha = cv2.warpAffine(mask, place, (cols, rows))[:, :, None]
        person = cv2.warpAffine(picture, place, (cols, rows), borderMode=cv2.BORDER_REFLECT)
        mixed = person * alpha + room[:, ::-1] * (1 - alpha)
        result.append(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))
    return np.array(result)


def _vary(pair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same crop, light and colour for both frames; sensor noise of its own for each."""
    rows, cols = pair.shape[1:3]
    if rng.random() < 0.5:
        pair = pair[:, :, ::-1]
    if rng.random() < 0.5:
        height, width = (int(side * rng.uniform(0.6, 1)) for side in (rows, cols))
        y, x = rng.integers(rows - height + 1), rng.integers(cols - width + 1)
        crop = [np.ascontiguousarray(p[y : y + height, x : x + width]) for p in pair]
        pair = np.stack([cv2.resize(p, (cols, rows), interpolation=cv2.INTER_LINEAR) for p in crop])
    light = (pair / 255.0) ** rng.uniform(0.7, 1.4)
    light = (light - 0.5) * rng.uniform(0.7, 1.2) + 0.5 + rng.uniform(-0.1, 0.1)
    light = light * rng.uniform(0.88, 1.12, 3) + rng.normal(0, rng.uniform(0, 0.02), light.shape)
    return np.clip(light * 255 + 0.5, 0, 255).astype(np.uint8)
