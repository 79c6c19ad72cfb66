"""What stands behind the person: a colour, an image, a video, the blurred room, or the room as it is.

`open_background` reads and checks everything that the settings name; a background that was opened renders a
picture of the frame's size and matrix for every frame without blocking. To change the background at run time,
open the new one (on any thread) and use it from the next frame on; the old one is then closed.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_seg.backgrounds.base import BACKGROUND_TYPES, Background, BackgroundSettings, BackgroundType, Fit
from edge_seg.backgrounds.blur import BlurBackground
from edge_seg.backgrounds.preview import PreviewBackground
from edge_seg.backgrounds.still import ColourBackground, ImageBackground, parse_colour
from edge_seg.types import Matrix

__all__ = [
    "BACKGROUND_TYPES",
    "Background",
    "BackgroundSettings",
    "BackgroundType",
    "Fit",
    "open_background",
    "parse_colour",
]


def _video(settings: BackgroundSettings, width: int, height: int, matrix: Matrix) -> Background:
    from edge_seg.backgrounds.video import VideoBackground  # GStreamer, only where a video is used

    return VideoBackground(settings, width, height, matrix)


_KINDS: dict[BackgroundType, Callable[[BackgroundSettings, int, int, Matrix], Background]] = {
    "colour": ColourBackground,
    "image": ImageBackground,
    "video": _video,
    "blur": BlurBackground,
    "none": PreviewBackground,
}


def open_background(settings: BackgroundSettings, width: int, height: int, matrix: Matrix) -> Background:
    """The background for frames of this size and matrix. ConfigError names what cannot be used, and why."""
    return _KINDS[settings.type](settings, width, height, matrix)
