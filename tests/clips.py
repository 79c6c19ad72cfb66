"""Makes the video files that tests need: small, with known content."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

COLOURS = ((81, 90, 240), (145, 54, 34), (41, 240, 110), (180, 128, 128))
"""YUV of the four quarters of `quarters`: strong colours, far from each other."""


def quarters(width: int, height: int) -> tuple[U8, U8, U8]:
    """A picture of four flat colours: which way is up, and what the colours are, can be read from it."""
    planes = []
    for index in range(3):
        rows, cols = (height, width) if index == 0 else ((height + 1) // 2, (width + 1) // 2)
        plane = np.empty((rows, cols), np.uint8)
        for quarter, colour in enumerate(COLOURS):
            y, x = divmod(quarter, 2)
            plane[y * rows // 2 : rows if y else rows // 2, x * cols // 2 : cols if x else cols // 2] = (
                colour[index]
            )
        planes.append(plane)
    return planes[0], planes[1], planes[2]


def numbered(width: int, height: int, index: int) -> tuple[U8, U8, U8]:
    """A picture whose brightness tells its number: 40, 44, 48, ... for 0, 1, 2, ... up to 40."""
    chroma = ((height + 1) // 2, (width + 1) // 2)
    grey = np.full(chroma, 128, np.uint8)
    return np.full((height, width), 40 + 4 * index, np.uint8), grey, grey


def number_of(luma: U8) -> int:
    """The number of a picture made by `numbered`."""
    return round((float(luma.mean()) - 40) / 4)


def write_clip(
    path: Path,
    draw: Callable[[int], tuple[U8, U8, U8]],
    frames: int,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 30,
    pts: Sequence[int] | None = None,
    colorspace: int | None = None,
    full_range: bool = False,
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a clip; its container follows from the name. `pts` counts in 1/1000 s and makes the rate
    variable. `colorspace` is FFmpeg's number: 1 BT.709, 6 BT.601, 9 BT.2020."""
    first = draw(0)
    height, width = first[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = options or ({"crf": "4", "preset": "ultrafast"} if codec == "libx264" else {})
        stream.gop_size = 10
        context = stream.codec_context
        context.thread_count = 1
        if colorspace is not None:
            context.colorspace = colorspace
            context.color_primaries = colorspace
            context.color_trc = {9: 1}.get(colorspace, colorspace)
        context.color_range = 2 if full_range else 1
        if pts is not None:
            context.time_base = stream.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for index in range(frames):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane, values in zip(frame.planes, draw(index), strict=True):
                target = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                target[: values.shape[0], : values.shape[1]] = values
            frame.pts = index if pts is None else pts[index]
            frame.time_base = Fraction(1, fps) if pts is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            _write_silence(container, audio, seconds=frames / fps)
    return path


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """A file without a picture."""
    with av.open(str(path), "w") as container:
        _write_silence(container, container.add_stream("aac", rate=48000, layout="mono"), seconds)
    return path


def _write_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    write_tone(container, stream, np.zeros((1, int(seconds * 48000 / 1024) * 1024), np.float32))


def write_tone(container: av.container.OutputContainer, stream: av.AudioStream, samples: F32) -> None:
    """Encodes `samples` (shape: (1, n), at 48 kHz) as the whole of this mono stream."""
    resampler = av.AudioResampler(
        stream.codec_context.format, "mono", 48000, frame_size=stream.codec_context.frame_size or 1024
    )
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "flt", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode())


def turn_by_quarter(path: Path) -> None:
    """Marks an MP4 file as to be shown turned clockwise by 90 degrees, as phones do held upright.

    The matrix stands in the track header (ISO/IEC 14496-12, 8.3.2), 40 bytes after its version field.
    """
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    matrix = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
