"""Calibration pictures: pairs of consecutive frames, varied so that few clips stand for many rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

STILLS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
FRAMES_PER_CLIP = 16
LONGEST_SIDE = 720
Mask = Callable[[np.ndarray], np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]
"""Two pictures of any size, BGR, one after the other; twice the same for a still."""


def pairs(
    paths: list[Path], size: tuple[int, int], count: int, mask: Mask, rooms: list[Path], seed: int = 0
) -> np.ndarray:
    """`count` pairs of frames of people, half of them from stills. Shape: (count, 2, rows, cols, 3), RGB.

    `paths` and `rooms` are videos, pictures and folders of them, the latter without people. Nearly every second
    pair shows its people cut out by `mask`, the float model, smaller and in front of a room or of others: people
    at a distance and busy rooms are where the model is unsure, and quantisation flips it.
    """
    rng = np.random.default_rng(seed)
    found = [pair for path in paths for pair in _read(path)]
    if not found:
        raise SystemExit(f"no pictures or videos in {', '.join(map(str, paths))}")
    stills = [pair for pair in found if pair[0] is pair[1]]
    kinds = [kind for kind in (stills, [pair for pair in found if pair[0] is not pair[1]]) if kind]
    empty = [pair for path in rooms for pair in _read(path)]

    def someone() -> np.ndarray:
        kind = kinds[rng.integers(len(kinds))]
        return _window(kind[rng.integers(len(kind))], size, rng)

    def somewhere() -> np.ndarray:
        room = (
            _window(empty[rng.integers(len(empty))], size, rng) if empty and rng.random() < 0.6 else someone()
        )
        return _light(room[[0, 0]] if rng.random() < 0.5 else room, rng)

    result = []
    for _ in range(count):
        pair = someone()
        if rng.random() < 0.45:
            pair = _collage(pair, mask(pair), somewhere(), rng)
        result.append(_light(pair, rng))
    return np.array(result)


def _read(path: Path) -> Iterator[Pair]:
    if path.is_dir():
        for child in sorted(path.rglob("*")):
            if child.is_file():
                yield from _read(child)
        return
    if path.suffix.lower() in STILLS:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            picture = _smaller(picture)
            yield picture, picture
        return
    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(np.linspace(0, max(0, total - 2), FRAMES_PER_CLIP).astype(int))
    before = None
    for k in range(total):
        more, picture = video.read()
        if not more:
            return
        picture = _smaller(picture) if k in wanted or k - 1 in wanted else None
        if before is not None and picture is not None and k - 1 in wanted:
            yield before, picture
        before = picture


def _smaller(picture: np.ndarray) -> np.ndarray:
    factor = LONGEST_SIDE / max(picture.shape[:2])
    if factor >= 1:
        return picture
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _window(pair: Pair, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A part of both pictures, of about the model's shape, or the whole, stretched. RGB, of `size`.

    Now and then turned a little, or larger than the picture (which is reflected then); a still is shaken by a
    pixel, as a hand or the sensor's noise would, so that it has something to say on jitter.
    """
    rows, cols = pair[0].shape[:2]
    height, width = float(rows), float(cols)
    if rng.random() > 0.3:
        aspect = np.exp(rng.uniform(-0.35, 0.35)) * (size[0] / size[1] if rng.random() < 0.7 else cols / rows)
        height = min(rows, cols / aspect) * rng.uniform(0.45, 1.0) * (1.25 if rng.random() < 0.25 else 1.0)
        width = height * aspect
    x = rng.uniform(min(0.0, cols - width), max(0.0, cols - width))
    y = rng.uniform(min(0.0, rows - height), max(0.0, rows - height))
    angle = np.radians(rng.normal(0, 4)) if rng.random() < 0.3 else 0.0
    along, down = width / size[0], height / size[1]
    reduced = max(1.0, min(along, down))
    result = []
    for k, picture in enumerate(pair):
        shake = rng.normal(0, 1.2 * along, 2) if k and pair[0] is pair[1] else (0.0, 0.0)
        place = np.array(
            [
                [np.cos(angle) * along, -np.sin(angle) * down, x + shake[0]],
                [np.sin(angle) * along, np.cos(angle) * down, y + shake[1]],
            ]
        )
        if reduced > 1.3:  # a warp alone would alias
            picture = cv2.resize(picture, None, fx=1 / reduced, fy=1 / reduced, interpolation=cv2.INTER_AREA)
            place /= reduced
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        result.append(cv2.warpAffine(picture, place, size, flags=flags, borderMode=cv2.BORDER_REFLECT))
    both = np.stack(result)[..., ::-1]
    return np.ascontiguousarray(both[:, :, ::-1] if rng.random() < 0.5 else both)


def _collage(pair: np.ndarray, masks: np.ndarray, behind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The people of `pair`, at 0.35 to all of their size, in front of `behind`; half of them at its lower edge."""
    rows, cols = pair.shape[1:3]
    factor = rng.uniform(0.35, 1.0)
    right = rng.uniform(-0.1 * cols, cols * (1.1 - factor))
    down = rng.uniform(0, rows * (1.05 - factor)) if rng.random() < 0.5 else rows * (1 - factor)
    place = np.array([[factor, 0, right], [0, factor, down]])
    result = []
    for picture, mask, room in zip(pair, masks, behind, strict=True):
        alpha = cv2.warpAffine(mask, place, (cols, rows))[:, :, None]
        person = cv2.warpAffine(picture, place, (cols, rows), borderMode=cv2.BORDER_REFLECT)
        result.append(np.clip(person * alpha + room * (1 - alpha) + 0.5, 0, 255).astype(np.uint8))
    return np.array(result)


def _light(pair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same light and colour for both pictures; sensor noise of its own for each."""
    rows, cols = pair.shape[1:3]
    light = (pair / 255.0) ** rng.uniform(0.6, 1.6)
    light = (light - 0.5) * rng.uniform(0.6, 1.25) + 0.5 + rng.uniform(-0.12, 0.12)
    if rng.random() < 0.1:  # at night, with an infrared lamp
        light = np.repeat(light.mean(axis=-1, keepdims=True), 3, axis=-1)
    light = light * rng.uniform(0.85, 1.15, 3)
    if rng.random() < 0.3:  # a lamp or a window at one side
        across = np.linspace(-1, 1, cols)[None, :] * rng.uniform(-0.3, 0.3)
        light = light * (1 + across + np.linspace(-1, 1, rows)[:, None] * rng.uniform(-0.3, 0.3))[..., None]
    light = light + rng.normal(0, rng.uniform(0, 0.025), light.shape)
    if rng.random() < 0.2:  # out of focus
        light = np.stack([cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 1.5)) for picture in light])
    return np.clip(light * 255 + 0.5, 0, 255).astype(np.uint8)
