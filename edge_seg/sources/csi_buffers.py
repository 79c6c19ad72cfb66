"""What libcamera's buffers hold: the layout of a stream that was configured, and our copy of a picture out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edge_seg.colour import bgr_to_i420
from edge_seg.errors import SourceLost
from edge_seg.geometry import WHOLE, Geometry, output_size, place, placed
from edge_seg.sources.gst import SKEW_NS, compress_range
from edge_seg.types import I420, U8, Matrix

FORMATS = ("YUV420", "BGR888", "RGB888")


@dataclass(frozen=True, slots=True)
class Stream:
    """What libcamera made of a stream that was asked for."""

    name: str
    format: str
    width: int
    height: int
    stride: int


def stream_of(name: str, config: Any) -> Stream:
    """From one of the streams in picamera2's camera_config."""
    width, height = config["size"]
    stride = config.get("stride") or (width if config["format"] == "YUV420" else 3 * width)
    return Stream(name, str(config["format"]), int(width), int(height), int(stride))


def same_shape(small: Stream, main: Stream) -> bool:
    """Whether both show the same part of the world: up to rounding to even sizes."""
    return abs(small.width * main.height - small.height * main.width) <= 2 * max(main.width, main.height)


def colours(space: Any, main: Stream) -> tuple[Matrix, bool]:
    """Matrix and whether the range is full, from a libcamera.ColorSpace."""
    fallback = Matrix.BT709 if main.height > 576 else Matrix.BT601
    encoding = getattr(getattr(space, "ycbcrEncoding", None), "name", "")
    matrix = {"Rec709": Matrix.BT709, "Rec601": Matrix.BT601}.get(encoding, fallback)
    is_full = getattr(getattr(space, "range", None), "name", "") == "Full"
    return matrix, is_full and main.format == "YUV420"


def copy_picture(memory: U8, stream: Stream, matrix: Matrix, is_full_range: bool, geometry: Geometry) -> I420:
    """Our own copy of a buffer, limited to 16..235. Raises SourceLost where the buffer is too small.

    Nothing refers to `memory` afterwards: picamera2 may unmap it.
    """
    if stream.format != "YUV420":
        return placed(copy_rgb(memory, stream, matrix), geometry)
    picture = copy_yuv420(memory, stream, matrix, geometry)
    if is_full_range:
        compress_range(picture)
    return picture


def copy_yuv420(memory: U8, stream: Stream, matrix: Matrix, geometry: Geometry = WHOLE) -> I420:
    """One copy out of the driver's memory, rows as long as `stride` there, half of it in U and V."""
    picture = I420.allocate(*output_size(stream.width, stream.height, geometry), matrix)
    offset = 0
    planes: list[U8] = []
    for half in (1, 2, 2):
        stride = stream.stride // half
        rows, cols = -(-stream.height // half), -(-stream.width // half)
        end = offset + stride * rows
        if stride < cols or end - stride + cols > memory.size:
            raise SourceLost(
                f"{stream.name}: {stream.width}x{stream.height} with rows of {stream.stride} bytes does not fit "
                f"into its buffer of {memory.size}"
            )
        planes.append(np.lib.stride_tricks.as_strided(memory[offset:], (rows, cols), (stride, 1)))
        offset = end
    place((planes[0], planes[1], planes[2]), geometry, picture)
    return picture


def copy_rgb(memory: U8, stream: Stream, matrix: Matrix) -> I420:
    """libcamera names the bytes from the last to the first: BGR888 is red, green, blue in memory."""
    size = stream.stride * stream.height
    if stream.stride < 3 * stream.width or memory.size < size:
        raise SourceLost(f"{stream.name}: {stream.format} with rows of {stream.stride} bytes does not fit")
    rows = memory[:size].reshape(stream.height, stream.stride)[:, : 3 * stream.width]
    pixels: U8 = np.ascontiguousarray(rows).reshape(stream.height, stream.width, 3)
    if stream.format == "BGR888":
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    return bgr_to_i420(pixels, matrix)


def capture_time(stamp: object, arrival_ns: int, boot_ns: int) -> int:
    """The sensor's time stamp on our monotonic clock. libcamera documents CLOCK_BOOTTIME and passes on what the
    driver wrote, which is CLOCK_MONOTONIC: whichever makes sense is taken."""
    if isinstance(stamp, int):
        if 0 <= arrival_ns - stamp < SKEW_NS:
            return stamp
        if 0 <= boot_ns - stamp < SKEW_NS:
            return arrival_ns - (boot_ns - stamp)
    return arrival_ns
