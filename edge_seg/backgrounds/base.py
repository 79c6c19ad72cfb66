"""What every background is given, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from edge_seg.types import I420, Frame, Mask

BackgroundType = Literal["colour", "image", "video", "blur", "none"]
Fit = Literal["cover", "contain", "stretch"]
BACKGROUND_TYPES: tuple[BackgroundType, ...] = get_args(BackgroundType)


@dataclass(frozen=True)
class BackgroundSettings:
    """What to show behind the person."""

    type: BackgroundType = "colour"
    path: Path | None = None
    """The file of `image` and `video`."""
    colour: str = "#30343c"
    """#rgb, #rrggbb or a CSS colour name: of `colour`, and where an image or video does not reach."""
    fit: Fit = "cover"
    """How an image or video fills a frame of another shape: cut off, bordered, or distorted."""
    strength: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Of `blur`. Even 0 leaves no text or face readable."""


class Background(ABC):
    """A source of pictures to put the person on. Not shared between threads."""

    shows_room = False
    """Whether what `render` returns is the room itself, never to be shown without a mask."""

    may_wait = False
    """Set where there is no hurry: `render` then waits for the picture that is due, so that the same recording always
    gives the same pictures."""

    @abstractmethod
    def render(self, frame: Frame, mask: Mask | None, now_ns: int) -> I420:
        """The picture behind the person, of the frame's size and matrix, valid until the next call.

        Never blocks unless it `may_wait`. `mask` is the one that the frame is composited with, if there is any.
        What is returned without one is safe to be shown alone, except by the `none` background, which shows the
        room.
        """

    def front(self, frame: Frame) -> I420:
        """The picture that the person is cut from: the frame, unless the person is to be tinted."""
        return frame.picture

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Ends what runs behind it. Harmless twice."""
