"""Backgrounds that do not move: a colour, and an image, made ready once."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from edge_seg.backgrounds.base import Background, BackgroundSettings, Fit
from edge_seg.colour import bgr_to_i420, rgb_to_yuv
from edge_seg.errors import ConfigError
from edge_seg.types import F32, I420, U8, Frame, Mask, Matrix

COLOUR_NAMES = {
    "black": "#000000", "silver": "#c0c0c0", "gray": "#808080", "grey": "#808080", "white": "#ffffff",
    "maroon": "#800000", "red": "#ff0000", "purple": "#800080", "fuchsia": "#ff00ff", "magenta": "#ff00ff",
    "green": "#008000", "lime": "#00ff00", "olive": "#808000", "yellow": "#ffff00", "navy": "#000080",
    "blue": "#0000ff", "teal": "#008080", "aqua": "#00ffff", "cyan": "#00ffff", "orange": "#ffa500",
    "pink": "#ffc0cb", "brown": "#a52a2a", "beige": "#f5f5dc", "slategray": "#708090",
}  # fmt: skip
"""Of CSS Color Module Level 4."""


def parse_colour(text: str) -> tuple[int, int, int]:
    """(red, green, blue), 0 to 255, from #rgb, #rrggbb or a CSS colour name."""
    code = COLOUR_NAMES.get(text.strip().lower(), text.strip())
    if re.fullmatch(r"#[0-9a-fA-F]{3}", code):
        code = "#" + "".join(digit * 2 for digit in code[1:])
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", code):
        raise ConfigError(
            f"background.colour: got {text!r}, expected #rgb, #rrggbb or one of {', '.join(COLOUR_NAMES)}"
        )
    red, green, blue = bytes.fromhex(code[1:])
    return red, green, blue


def solid(colour: str, width: int, height: int, matrix: Matrix) -> I420:
    """A picture of one colour."""
    y, u, v = np.rint(rgb_to_yuv(np.array(parse_colour(colour), np.float32), matrix)).astype(int)
    return I420.filled(width, height, (int(y), int(u), int(v)), matrix)


def read_image(path: Path, paper: tuple[int, int, int]) -> U8:
    """An image of any kind that OpenCV reads, upright, on `paper` (RGB) where it is transparent.

    Returns shape (height, width, 3), uint8, BGR.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ConfigError(f"background.path: cannot read {path}: {error.strerror}") from error
    if data.size == 0:
        raise ConfigError(f"background.path: {path} is empty")
    if _is_cut_off(data.tobytes()):
        raise ConfigError(f"background.path: {path} is cut off before its end")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if image is not None and (image.ndim == 2 or image.shape[2] == 3):
            # This flag obeys the orientation that cameras write, IMREAD_UNCHANGED does not.
            image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ConfigError(f"background.path: cannot decode {path}: {error.err}") from error
    if image is None:
        raise ConfigError(f"background.path: {path} is no image (PNG, JPEG, WebP, BMP, TIFF are)")
    levels: F32 = np.asarray(image, np.float32)
    if image.dtype == np.uint16:
        levels /= 257
    elif image.dtype != np.uint8:  # Radiance HDR and float TIFF: [0, 1]
        levels = np.multiply(np.clip(np.nan_to_num(levels), 0, 1), 255, dtype=np.float32)
    opaque: F32 = levels[..., :3]
    if levels.shape[2] == 4:
        behind: F32 = np.array(paper[::-1], np.float32)
        opaque = np.asarray(behind + (opaque - behind) * (levels[..., 3:] / np.float32(255)), np.float32)
    rounded: U8 = np.rint(opaque).astype(np.uint8)
    return rounded


def _is_cut_off(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end mark. Decoders fill what is missing with grey or black."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    if data.startswith(b"\xff\xd8"):
        # An embedded thumbnail has an end mark too: the one of the picture comes after the last scan's start.
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return False


def fit_image(bgr: U8, width: int, height: int, fit: Fit, paper: tuple[int, int, int]) -> U8:
    """The image in a frame of width x height: cut off (cover), bordered by `paper` (contain) or stretched."""
    rows, cols = bgr.shape[:2]
    if fit == "cover":  # what of the image is seen
        seen_cols = min(cols, max(1, round(rows * width / height)))
        seen_rows = min(rows, max(1, round(cols * height / width)))
        top, left = (rows - seen_rows) // 2, (cols - seen_cols) // 2
        return _resize(bgr[top : top + seen_rows, left : left + seen_cols], width, height)
    if fit == "stretch":
        return _resize(bgr, width, height)
    inner_width = min(width, max(1, round(height * cols / rows)))
    inner_height = min(height, max(1, round(width * rows / cols)))
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = paper[::-1]
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas[top : top + inner_height, left : left + inner_width] = _resize(bgr, inner_width, inner_height)
    return canvas


def _resize(bgr: U8, width: int, height: int) -> U8:
    shrinks = bgr.shape[0] > height or bgr.shape[1] > width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(bgr, (width, height), interpolation=interpolation), np.uint8)


def _one_row(strip: I420, height: int) -> I420:
    """A picture all rows of which are the first one of `strip`, read only; its `buffer` is the strip's. Who copies it
    reads that row from the cache, where a whole picture would come from memory."""
    rows = (height, (height + 1) // 2, (height + 1) // 2)
    y, u, v = (np.broadcast_to(p[:1], (n, p.shape[1])) for p, n in zip(strip.planes, rows, strict=True))
    return I420(buffer=strip.buffer, y=y, u=u, v=v, matrix=strip.matrix)


class ColourBackground(Background):
    """One colour; green for those who key it out elsewhere."""

    def __init__(self, settings: BackgroundSettings, width: int, height: int, matrix: Matrix) -> None:
        self._picture = _one_row(solid(settings.colour, width, 2, matrix), height)

    def render(self, frame: Frame, mask: Mask | None, now_ns: int) -> I420:
        return self._picture


class ImageBackground(Background):
    """An image file, made ready once."""

    def __init__(self, settings: BackgroundSettings, width: int, height: int, matrix: Matrix) -> None:
        if settings.path is None:
            raise ConfigError("background.path: an image background needs the path of the image")
        paper = parse_colour(settings.colour)
        image = read_image(settings.path, paper)
        self._picture = bgr_to_i420(fit_image(image, width, height, settings.fit, paper), matrix)

    def render(self, frame: Frame, mask: Mask | None, now_ns: int) -> I420:
        return self._picture
