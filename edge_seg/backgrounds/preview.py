"""No background: the room as it is, the person tinted, to see what the mask does."""

from __future__ import annotations

import cv2
import numpy as np

from edge_seg.backgrounds.base import Background, BackgroundSettings
from edge_seg.colour import rgb_to_yuv
from edge_seg.types import I420, Frame, Mask, Matrix

_TINT_RGB = (40, 255, 80)
_TINT_SHARE = 0.5


class PreviewBackground(Background):
    """The frame behind, and the frame with its chroma drawn towards green in front."""

    shows_room = True

    def __init__(self, settings: BackgroundSettings, width: int, height: int, matrix: Matrix) -> None:
        _, self._tint_u, self._tint_v = rgb_to_yuv(np.array(_TINT_RGB, np.float32), matrix)
        self._tinted = I420.allocate(width, height, matrix)

    def render(self, frame: Frame, mask: Mask | None, now_ns: int) -> I420:
        return frame.picture

    def front(self, frame: Frame) -> I420:
        picture, tinted = frame.picture, self._tinted
        for plane, target, tint in ((picture.u, tinted.u, self._tint_u), (picture.v, tinted.v, self._tint_v)):
            cv2.convertScaleAbs(plane, dst=target, alpha=1 - _TINT_SHARE, beta=_TINT_SHARE * float(tint))
        return I420(buffer=tinted.buffer, y=picture.y, u=tinted.u, v=tinted.v, matrix=picture.matrix)
