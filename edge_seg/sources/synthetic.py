"""The drawn person as a source: known mask, known motion, frame number and time readable in the picture.

A frame is a pure function of (settings, index, capture time). The code of `timecode.py` is printed on the
shirt, inside of the mask, so that it comes out of the whole pipeline at the viewer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, cos, floor, pi, radians, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.errors import SourceLost
from edge_seg.sources import figure, timecode
from edge_seg.sources.base import SourceFormat, SyntheticSettings
from edge_seg.types import F32, I420, U8, Frame, Matrix

NOISE_SPARE_PX = 64
"""How far the field of noise is shifted at random from frame to frame."""
PAN_SPARE = 0.12
"""How far the camera can pan to either side, as a share of the picture's width."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where everything is at one moment. Lengths in units of the shorter side, angles in degrees."""

    x: float = 0.0
    """Of the person's middle from the picture's middle, to the right."""
    y: float = 0.0
    tilt: float = 0.0
    """Of the head, clockwise."""
    forearm: float | None = None
    """Angle of the raised forearm; None when it hangs, out of the picture."""
    pan: float = 0.0
    """Of the camera, as a share of the picture's width; everything moves by it."""
    scene: int = 0


def pose_at(settings: SyntheticSettings, index: int) -> Pose:
    """The pose in the frame with this index."""
    t = index / settings.fps
    scene = index // settings.cut_every % len(figure.LOOKS) if settings.cut_every else 0
    bob = 0.008 * sin(2 * pi * t / 2.3)
    tilt = 4.0 * sin(2 * pi * t / 3.1)
    sway = 0.05 * sin(2 * pi * t / 4.0)
    beyond = 0.5 * settings.width / min(settings.width, settings.height) + 0.56  # out of the picture
    side = 0.12 * (1 - 2 * scene) if settings.cut_every else 0.0
    if settings.motion == "still":
        return Pose(x=side, scene=scene)
    if settings.motion == "walk":
        phase = t / 7.0 % 2
        return Pose(
            x=beyond * (2 * phase - 1 if phase < 1 else 3 - 2 * phase), y=bob, tilt=tilt / 2, scene=scene
        )
    if settings.motion == "enter_leave":
        # Per 10 s: an empty room, in from the left, a stay, out again.
        phase = t % 10.0
        away = max(_ease((3.0 - phase) / 1.6), _ease((phase - 7.8) / 1.6))
        return Pose(x=-beyond * away + sway * (1 - away), y=bob, tilt=tilt, scene=scene)
    if settings.motion == "wave":
        return Pose(x=side + sway / 3, y=bob, tilt=tilt, forearm=-6 + 26 * sin(2 * pi * t / 1.1), scene=scene)
    if settings.motion == "pan":
        return Pose(x=side + sway / 2, y=bob, tilt=tilt, pan=PAN_SPARE * sin(2 * pi * t / 5.0), scene=scene)
    return Pose(x=side + sway, y=bob, tilt=tilt, scene=scene)


def draw(settings: SyntheticSettings, index: int, captured_ns: int) -> Frame:
    """The frame with this index, stamped with this time."""
    pose = pose_at(settings, index)
    stage = _stage(settings.width, settings.height, pose.scene, settings.seed)
    picture = I420.allocate(settings.width, settings.height, Matrix.BT709)
    pan_px = 2 * round(pose.pan * settings.width / 2)
    stage.copy_room(picture, pan_px)
    behind = np.full((settings.height, settings.width), 255, np.uint8)

    unit = min(settings.width, settings.height)
    x = pose.x * unit + pan_px
    y = pose.y * unit
    _place(stage.body, picture, behind, x, y, 0.0)
    if pose.forearm is not None:
        _place(stage.forearm, picture, behind, x, y, pose.forearm)
    _place(stage.head, picture, behind, x, y, pose.tilt)
    _print_code(picture, timecode.Code(index, captured_ns), x, y)
    if settings.noise:
        _add_noise(picture.y, settings, index)
    truth = cv2.compare(behind, 127, cv2.CMP_LE).astype(np.uint8, copy=False)
    return Frame(picture, index, captured_ns, truth)


class SyntheticSource:
    """Draws each frame ahead and hands it out when it is due."""

    name = "synthetic"

    def __init__(
        self,
        settings: SyntheticSettings,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.live = settings.realtime
        self.format = SourceFormat(
            settings.width,
            settings.height,
            Fraction(settings.fps).limit_denominator(1001),
            Matrix.BT709,
        )
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._start_ns: int | None = None
        self._next = 0
        self._drawn: Frame | None = None

    def open(self) -> None:
        for scene in range(len(figure.LOOKS) if self._settings.cut_every else 1):
            _stage(self._settings.width, self._settings.height, scene, self._settings.seed)
        self._next = 0
        self._drawn = None
        self._start_ns = self._clock()

    def read(self, timeout_ns: int) -> Frame | None:
        if self._start_ns is None:
            raise SourceLost("the synthetic source is closed")
        if not self._settings.realtime:
            frame = draw(self._settings, self._next, self._due_ns(self._start_ns, self._next))
            self._next += 1
            return frame
        deadline_ns = self._clock() + timeout_ns
        if self._drawn is None:
            elapsed = (self._clock() - self._start_ns) * self._settings.fps / 1e9
            self._next = max(self._next, floor(elapsed))  # frames that nobody asked for are lost
            self._drawn = draw(self._settings, self._next, self._due_ns(self._start_ns, self._next))
        due_ns = self._drawn.captured_ns
        wait_ns = min(due_ns, deadline_ns) - self._clock()
        if wait_ns > 0:
            self._sleep(wait_ns / 1e9)
        if due_ns > deadline_ns:
            return None
        frame, self._drawn = self._drawn, None
        self._next += 1
        return frame

    def close(self) -> None:
        self._start_ns = None

    def _due_ns(self, start_ns: int, index: int) -> int:
        return start_ns + round(index * 1e9 / self._settings.fps)


@dataclass(frozen=True, slots=True, eq=False)
class _Sprite:
    """A part of the person, scaled to the picture, its colours multiplied by its alpha."""

    luma: tuple[U8, U8]
    """Luma x alpha, and alpha. Shape of each: (height, width)."""
    chroma: tuple[U8, U8, U8]
    """U x alpha, V x alpha, and alpha. Shape of each: ((height + 1) // 2, (width + 1) // 2)."""
    left: float
    """Of the sprite in the picture when the pose is zero, in pixels."""
    top: float
    pivot: tuple[float, float]
    """In pixels of the sprite."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """All that is drawn once for a size, a scene and a seed."""

    room: I420
    body: _Sprite
    head: _Sprite
    forearm: _Sprite

    def copy_room(self, picture: I420, pan_px: int) -> None:
        left = (self.room.width - picture.width) // 4 * 2 - pan_px
        for plane, room, x in zip(
            picture.planes, self.room.planes, (left, left // 2, left // 2), strict=True
        ):
            np.copyto(plane, room[: plane.shape[0], x : x + plane.shape[1]])


@lru_cache(maxsize=4)
def _stage(width: int, height: int, scene: int, seed: int) -> _Stage:
    look = figure.LOOKS[scene]
    person = figure.draw_figure(look, seed)
    room_width = width + 4 * ceil(PAN_SPARE * width / 2) + 4
    room = _to_i420(figure.draw_room(look, room_width, height, seed).astype(np.float32))
    neck, elbow = figure.NECK, figure.ELBOW
    return _Stage(
        room,
        _sprite(person.body, neck, width, height),
        _sprite(person.head, neck, width, height),
        _sprite(person.forearm, elbow, width, height),
    )


def _sprite(part: figure.Part, pivot: tuple[int, int], width: int, height: int) -> _Sprite:
    unit = min(width, height)
    scale = unit / figure.UNIT
    rows, cols = np.nonzero(part.alpha)
    x0, x1, y0, y1 = int(cols.min()), int(cols.max()) + 1, int(rows.min()), int(rows.max()) + 1
    size = (max(2, round((x1 - x0) * scale)), max(2, round((y1 - y0) * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    rgb = cv2.resize(part.rgb[y0:y1, x0:x1], size, interpolation=method)
    alpha = cv2.resize(part.alpha[y0:y1, x0:x1], size, interpolation=method)
    # One pixel of nothing around it: bilinear sampling then fades out at the edge of the array.
    rgb = cv2.copyMakeBorder(rgb, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    bottom = cv2.BORDER_CONSTANT
    alpha = cv2.copyMakeBorder(alpha, 2, 2, 2, 2, bottom, value=0)
    y, u, v = _ycbcr(rgb)
    half = ((alpha.shape[1] + 1) // 2, (alpha.shape[0] + 1) // 2)
    chroma = [cv2.resize(plane * alpha, half, interpolation=cv2.INTER_AREA) for plane in (u, v)]
    small = cv2.resize(alpha, half, interpolation=cv2.INTER_AREA) * 255
    return _Sprite(
        luma=(_u8(y * alpha), _u8(alpha * 255)),
        chroma=(_u8(chroma[0]), _u8(chroma[1]), _u8(small)),
        left=width / 2 + (x0 - figure.CANVAS[0] / 2) * scale - 2,
        top=height - unit + y0 * scale - 2,
        pivot=((pivot[0] - x0) * scale + 2, (pivot[1] - y0) * scale + 2),
    )


def _place(sprite: _Sprite, picture: I420, behind: U8, x: float, y: float, degrees: float) -> None:
    """Draws a sprite, moved by (x, y) pixels and turned about its pivot, and takes it out of `behind`."""
    px, py = sprite.pivot
    c, s = cos(radians(degrees)), sin(radians(degrees))
    to_picture = np.array(
        [
            [c, -s, px - c * px + s * py + sprite.left + x],
            [s, c, py - s * px - c * py + sprite.top + y],
        ]
    )
    height, width = sprite.luma[0].shape
    corners = to_picture @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    x0, y0 = (max(0, floor(v / 2) * 2) for v in corners.min(axis=1))
    x1 = min(picture.width, ceil(corners[0].max()))
    y1 = min(picture.height, ceil(corners[1].max()))
    if x1 <= x0 or y1 <= y0:
        return
    to_picture[:, 2] -= (x0, y0)
    luma, alpha = (_warp(image, to_picture, x1 - x0, y1 - y0) for image in sprite.luma)
    kept = cv2.bitwise_not(alpha)
    _blend(picture.y[y0:y1, x0:x1], luma, kept)
    _blend(behind[y0:y1, x0:x1], None, kept)

    half = to_picture.copy()  # chroma samples stand in the middle of 2 x 2 luma samples
    half[:, 2] = (to_picture[:, 2] + to_picture[:, :2] @ (0.5, 0.5) - 0.5) / 2
    rows, cols = slice(y0 // 2, (y1 + 1) // 2), slice(x0 // 2, (x1 + 1) // 2)
    u, v, alpha = (
        _warp(image, half, cols.stop - cols.start, rows.stop - rows.start) for image in sprite.chroma
    )
    kept = cv2.bitwise_not(alpha)
    _blend(picture.u[rows, cols], u, kept)
    _blend(picture.v[rows, cols], v, kept)


def _warp(image: U8, to_picture: NDArray[np.float64], width: int, height: int) -> U8:
    return np.asarray(cv2.warpAffine(image, to_picture, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def _blend(below: U8, above: U8 | None, kept: NDArray[np.generic]) -> None:
    """below = below * kept / 255 + above, in place; `above` comes multiplied by its alpha, 255 - kept."""
    cv2.multiply(below, kept, dst=below, scale=1 / 255)
    if above is not None:
        cv2.add(below, above, dst=below)


def _print_code(picture: I420, code: timecode.Code, x: float, y: float) -> None:
    unit = min(picture.width, picture.height)
    cell = timecode.cell_px(picture.width, picture.height)
    rim = max(1, cell // 2)
    width, height = timecode.COLUMNS * cell, timecode.ROWS * cell
    left = round(picture.width / 2 + x) - width // 2
    top = picture.height - unit + round(figure.CHEST_Y * unit + y)
    x0, x1 = max(0, left - rim), min(picture.width, left + width + rim)
    y0, y1 = max(0, top - rim), min(picture.height, top + height + rim)
    if x1 <= x0 or y1 <= y0:
        return
    panel = np.full((height + 2 * rim, width + 2 * rim), timecode.WHITE, np.uint8)
    timecode.paint(panel[rim:-rim, rim:-rim], code, cell)
    picture.y[y0:y1, x0:x1] = panel[y0 - top + rim : y1 - top + rim, x0 - left + rim : x1 - left + rim]
    for plane in (picture.u, picture.v):
        plane[(y0 + 1) // 2 : y1 // 2, (x0 + 1) // 2 : x1 // 2] = 128


def _add_noise(luma: U8, settings: SyntheticSettings, index: int) -> None:
    field = _noise(luma.shape[0], luma.shape[1], settings.noise, settings.seed)
    rng = np.random.Generator(np.random.PCG64([settings.seed, 4, index]))
    dy, dx = rng.integers(0, NOISE_SPARE_PX, 2)
    cv2.add(luma, field[dy : dy + luma.shape[0], dx : dx + luma.shape[1]], dst=luma, dtype=cv2.CV_8U)


@lru_cache(maxsize=2)
def _noise(height: int, width: int, sigma: float, seed: int) -> NDArray[np.int16]:
    rng = np.random.Generator(np.random.PCG64([seed, 3]))
    shape = (height + NOISE_SPARE_PX, width + NOISE_SPARE_PX)
    return np.rint(rng.normal(0, sigma, shape)).astype(np.int16)


def _ease(value: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    clipped = min(1.0, max(0.0, value))
    return clipped * clipped * (3 - 2 * clipped)


def _ycbcr(rgb: F32) -> tuple[F32, F32, F32]:
    """RGB, 0 to 255, to limited-range YCbCr with the matrix of ITU-R BT.709."""
    r, g, b = rgb[..., 0] / 255, rgb[..., 1] / 255, rgb[..., 2] / 255
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return 16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748


def _to_i420(rgb: F32) -> I420:
    picture = I420.allocate(rgb.shape[1], rgb.shape[0], Matrix.BT709)
    even = cv2.copyMakeBorder(rgb, 0, rgb.shape[0] % 2, 0, rgb.shape[1] % 2, cv2.BORDER_REPLICATE)
    y, u, v = _ycbcr(even)
    picture.y[...] = _u8(y[: rgb.shape[0], : rgb.shape[1]])
    size = (picture.u.shape[1], picture.u.shape[0])
    picture.u[...] = _u8(cv2.resize(u, size, interpolation=cv2.INTER_AREA))
    picture.v[...] = _u8(cv2.resize(v, size, interpolation=cv2.INTER_AREA))
    return picture


def _u8(values: F32) -> U8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
