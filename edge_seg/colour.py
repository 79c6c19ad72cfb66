"""Between RGB, full range, and YCbCr, limited range, by the matrices of ITU-R BT.601-7 and BT.709-6."""

from __future__ import annotations

import cv2
import numpy as np

from edge_seg.types import F32, I420, U8, Matrix

# Kr and Kb: BT.601-7 (2.5.1), BT.709-6 (3.2).
_LUMA_WEIGHTS = {Matrix.BT601: (0.299, 0.114), Matrix.BT709: (0.2126, 0.0722)}


def rgb_to_yuv(rgb: F32, matrix: Matrix) -> F32:
    """Limited-range YCbCr code values, not rounded, of RGB in [0, 255]. Shape: (..., 3), float32, both."""
    red_weight, blue_weight = _LUMA_WEIGHTS[matrix]
    weights = np.array([red_weight, 1 - red_weight - blue_weight, blue_weight], np.float32)
    luma = rgb @ weights
    blue_difference = (rgb[..., 2] - luma) / np.float32(2 * (1 - blue_weight))
    red_difference = (rgb[..., 0] - luma) / np.float32(2 * (1 - red_weight))
    scale = np.float32(224 / 255)
    return np.stack(
        [
            16 + luma * np.float32(219 / 255),
            128 + blue_difference * scale,
            128 + red_difference * scale,
        ],
        axis=-1,
    )


def yuv_to_rgb_rows(matrix: Matrix) -> F32:
    """Rows that give red, green, blue in [0, 255] from (y, u, v, 1), code values. Shape: (3, 4), float32."""
    kr, kb = _LUMA_WEIGHTS[matrix]
    kg = 1 - kr - kb
    luma, chroma = 255 / 219, 255 / 224
    red_v, blue_u = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    rows = np.array(
        [[luma, 0, red_v, 0], [luma, -blue_u * kb / kg, -red_v * kr / kg, 0], [luma, blue_u, 0, 0]],
        np.float64,
    )
    rows[:, 3] = -16 * rows[:, 0] - 128 * (rows[:, 1] + rows[:, 2])
    return rows.astype(np.float32)


def bgr_to_i420(bgr: U8, matrix: Matrix) -> I420:
    """A picture of the same size. bgr: shape (height, width, 3), uint8."""
    height, width = bgr.shape[:2]
    picture = I420.allocate(width, height, matrix)
    # The conversion is linear: its rows are what it makes of the unit colours, minus what it makes of black.
    black, *units = rgb_to_yuv(np.array([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)], np.float32), matrix)
    rows = np.stack([*(unit - black for unit in units), black], axis=1)
    yuv = np.asarray(cv2.transform(bgr, rows), np.uint8)  # rounds; 20 times faster than in NumPy
    np.copyto(picture.y, yuv[:, :, 0])
    even = cv2.copyMakeBorder(yuv, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    half = np.asarray(cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    np.copyto(picture.u, half[:, :, 1])
    np.copyto(picture.v, half[:, :, 2])
    return picture


def i420_to_bgr(picture: I420) -> U8:
    """For PNG and JPEG files. Shape: (height, width, 3), uint8."""
    size = (picture.width, picture.height)
    u, v = (cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in (picture.u, picture.v))
    yuv = cv2.merge([np.ascontiguousarray(picture.y), u, v])
    rows = np.ascontiguousarray(yuv_to_rgb_rows(picture.matrix)[::-1])
    bgr: U8 = np.clip(np.rint(cv2.transform(yuv.astype(np.float32), rows)), 0, 255).astype(np.uint8)
    return bgr
