"""The drawn person as a source: known mask, known motion, frame number and time readable in the picture.

A frame is a pure function of (settings, index, capture time). The code of `timecode.py` is printed on the
shirt, inside of the mask, so that it comes out of the whole pipeline at the viewer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.errors import SourceLost
from edge_seg.geometry import WHOLE, Geometry, output_size, placed, placed_plane
from edge_seg.sources import figure, timecode
from edge_seg.sources.base import SourceFormat, SyntheticSettings
from edge_seg.sources.room import draw_room
from edge_seg.sources.sprite import Sprite, make_sprite, to_i420
from edge_seg.types import I420, U8, Frame, Matrix

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
    stage.body.blend_into(picture, behind, x, y, 0.0)
    if pose.forearm is not None:
        stage.forearm.blend_into(picture, behind, x, y, pose.forearm)
    stage.head.blend_into(picture, behind, x, y, pose.tilt)
    _print_code(picture, timecode.Code(index, captured_ns), x, y)
    if settings.noise:
        _add_noise(picture.y, settings, index)
    _, truth = cv2.threshold(behind, 127, 255, cv2.THRESH_BINARY_INV)
    return Frame(picture, index, captured_ns, np.asarray(truth, np.uint8))


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
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._start_ns: int | None = None
        self._next = 0
        self._drawn: Frame | None = None
        self._geometry = WHOLE

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @geometry.setter
    def geometry(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._drawn = None  # drawn ahead, for the view of before

    @property
    def format(self) -> SourceFormat:
        size = output_size(self._settings.width, self._settings.height, self._geometry)
        return SourceFormat(*size, Fraction(self._settings.fps).limit_denominator(1001), Matrix.BT709)

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
            frame = self._draw(self._due_ns(self._start_ns, self._next))
            self._next += 1
            return frame
        deadline_ns = self._clock() + timeout_ns
        if self._drawn is None:
            elapsed = (self._clock() - self._start_ns) * self._settings.fps / 1e9
            self._next = max(self._next, floor(elapsed))  # frames that nobody asked for are lost
            self._drawn = self._draw(self._due_ns(self._start_ns, self._next))
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

    def _draw(self, due_ns: int) -> Frame:
        frame = draw(self._settings, self._next, due_ns)
        if self._geometry == WHOLE:
            return frame
        truth = None if frame.truth is None else placed_plane(frame.truth, self._geometry)
        return replace(frame, picture=placed(frame.picture, self._geometry), truth=truth)

    def _due_ns(self, start_ns: int, index: int) -> int:
        return start_ns + round(index * 1e9 / self._settings.fps)


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """All that is drawn once for a size, a scene and a seed."""

    room: I420
    body: Sprite
    forearm: Sprite
    head: Sprite

    def copy_room(self, picture: I420, pan_px: int) -> None:
        left = (self.room.width - picture.width) // 4 * 2 - pan_px
        offsets = (left, left // 2, left // 2)
        for plane, room, x in zip(picture.planes, self.room.planes, offsets, strict=True):
            np.copyto(plane, room[:, x : x + plane.shape[1]])


@lru_cache(maxsize=4)
def _stage(width: int, height: int, scene: int, seed: int) -> _Stage:
    look = figure.LOOKS[scene]
    person = figure.draw_figure(look, seed)
    room_width = width + 4 * ceil(PAN_SPARE * width / 2) + 4
    room = to_i420(draw_room(look.wall, room_width, height, seed).astype(np.float32))
    unit = min(width, height)
    scale = unit / figure.UNIT
    origin = (width / 2 - figure.CANVAS[0] / 2 * scale, height - unit)

    def sprite(part: figure.Part, pivot: tuple[int, int]) -> Sprite:
        return make_sprite(part.rgb, part.alpha, scale, origin, pivot)

    return _Stage(
        room,
        body=sprite(person.body, figure.NECK),
        forearm=sprite(person.forearm, figure.ELBOW),
        head=sprite(person.head, figure.NECK),
    )


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
    field: NDArray[np.int16] = np.rint(rng.normal(0, sigma, shape)).astype(np.int16)
    return field


def _ease(value: float) -> float:
    """0 below 0, 1 above 1, smooth between."""
    clipped = min(1.0, max(0.0, value))
    return clipped * clipped * (3 - 2 * clipped)
