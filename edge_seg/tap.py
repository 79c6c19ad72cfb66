"""Hands single frames out of the frame loop to who asks, and costs nothing while nobody does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_seg.types import I420, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Tapped:
    """One frame as it left. The pictures are the tap's own memory, valid until it is asked again."""

    output: I420
    """What viewers see."""
    mask: Mask | None
    """The mask that it was composited with; None when it shows no person."""
    camera: I420 | None
    """What the camera saw: the room. None unless that was asked for, is allowed, and there is a camera."""


Answer = Callable[[Tapped], None]


class FrameTap:
    """Asked by one thread at a time, one frame at a time; answered by the frame loop with the next frame."""

    def __init__(self, *, may_show_camera: bool = False) -> None:
        """Unless `may_show_camera`, nothing that the camera sees leaves by this way but in the output."""
        self._may_show_camera = may_show_camera
        self._asked: tuple[Answer, bool] | None = None
        self._output: I420 | None = None
        self._camera: I420 | None = None

    def allow(self, camera: bool) -> None:
        """Whether what the camera sees may leave by this way, from now on."""
        self._may_show_camera = camera

    @property
    def is_asked(self) -> bool:
        """Whether a frame is wanted: all that the frame loop looks at."""
        return self._asked is not None

    def ask(self, answer: Answer, *, camera: bool = False) -> None:
        """Wants the next frame. `answer` is called once, on the frame loop's thread, and must return at once."""
        self._asked = (answer, camera and self._may_show_camera)

    def offer(self, output: I420, mask: Mask | None, camera: I420 | None) -> None:
        """The frame loop's part, with what it has just handed to the outputs."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        answer, wants_camera = asked
        wants_camera = wants_camera and self._may_show_camera  # that may have changed since
        self._output = _copy(output, self._output)
        seen: I420 | None = None
        if wants_camera and camera is not None:
            seen = self._camera = _copy(camera, self._camera)
        answer(Tapped(self._output, mask, seen))


def _copy(picture: I420, into: I420 | None) -> I420:
    """A copy, in the memory of the one before where that fits: fresh pages cost more than the copy."""
    if into is None or into.y.shape != picture.y.shape or into.matrix != picture.matrix:
        into = I420.allocate(picture.width, picture.height, picture.matrix)
    for source, target in zip(picture.planes, into.planes, strict=True):
        np.copyto(target, source)
    return into
