"""From a tapped frame to a small JPEG. Pure."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

from edge_seg.colour import yuv_to_rgb_rows
from edge_seg.pyramid import shrink
from edge_seg.tap import Tapped
from edge_seg.types import F32, I420, U8, Mask

View = Literal["output", "mask", "camera"]
"""output: what viewers see. mask: the same with the mask drawn over it. camera: what the camera sees, beside it."""
VIEWS: tuple[View, ...] = get_args(View)

LONGEST_PX = {"output": 640, "mask": 640, "camera": 480}
"""Longer side of each picture in a view."""
QUALITY = 75

_MASK_BGR = (236, 128, 32)
_MASK_SHARE = 0.45
_EDGE_BGR = (255, 255, 255)


def jpeg(tapped: Tapped, view: View) -> bytes:
    """The picture of a view. One of the camera shows the output alone where the tap gives no more."""
    longest_px = LONGEST_PX[view]
    picture = to_bgr(tapped.output, longest_px)
    if view == "mask" and tapped.mask is not None:
        draw_mask(picture, tapped.mask)
    elif view == "camera" and tapped.camera is not None:
        picture = np.hstack([to_bgr(tapped.camera, longest_px), picture])
    _, encoded = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    return encoded.tobytes()


def to_bgr(picture: I420, longest_px: int) -> U8:
    """A small picture for people. Shape: (height, width, 3), uint8, the longer side at most `longest_px`."""
    scale = min(1.0, longest_px / max(picture.width, picture.height))
    small = shrink(picture, (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    rows = np.ascontiguousarray(yuv_to_rgb_rows(picture.matrix)[::-1])
    return np.asarray(cv2.transform(cv2.merge([small.y, small.u, small.v]), rows), np.uint8)


def draw_mask(bgr: U8, mask: Mask) -> None:
    """Tints what the mask takes for the person, and draws a line around (probability 0.5)."""
    height, width = bgr.shape[:2]
    probability: F32 = np.asarray(cv2.resize(mask.probability, (width, height)), np.float32)
    person = (probability > 0.5).astype(np.uint8)
    tint = np.zeros((3, 4), np.float32)
    tint[:, :3] = np.eye(3) * (1 - _MASK_SHARE)
    tint[:, 3] = np.array(_MASK_BGR) * _MASK_SHARE
    cv2.copyTo(cv2.transform(bgr, tint), person, bgr)
    contours, _ = cv2.findContours(person, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(bgr, contours, -1, _EDGE_BGR, 1, cv2.LINE_AA)
