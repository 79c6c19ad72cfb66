"""What every output is to `Outputs`, which owns its thread, its queue and its retries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from edge_seg.types import I420, Matrix


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What the pictures of an output look like. Width and height are even: encoders need it."""

    width: int
    height: int
    fps: Fraction
    matrix: Matrix


class Sink(ABC):
    """An output, for one try: it is opened once, and another one is made when it has failed.

    All but its construction and the plain attributes happens in one thread, which is the output's own: every call
    may take its time. What fails later (a message on a GStreamer bus) is raised by the next `push`.
    """

    name: str
    """Its kind: rtsp, file, ..."""

    wants_pictures: bool = True
    """Whether pictures are of use now. Read by the frame loop, so no more than a look at a variable; while no output
    wants pictures, none is copied."""

    depth: int = 2
    """Pictures that may wait for this output. When one more comes, the oldest is dropped."""

    retry_s: float | None = None
    """The longest pause between two tries, in seconds, where a try costs next to nothing; None: as others."""

    @abstractmethod
    def open(self, output: OutputFormat) -> None:
        """Makes the output reachable. Raises SinkError; with `permanent`, when no retry will mend it."""

    @abstractmethod
    def reformat(self, output: OutputFormat) -> None:
        """The pictures that follow have another format; viewers stay. Raises SinkError."""

    @abstractmethod
    def push(self, picture: I420, captured_ns: int) -> None:
        """Takes one picture, captured at `captured_ns` (monotonic).

        It may be read, and is valid, as long as it is referred to; `gstreamer.to_buffer` makes a buffer of it
        without a copy. Raises SinkError when the output is broken.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the output within a second, also after a failed `open`. May be called twice. Raises SinkError where it
        does not end."""

    def adjust(self, settings: Any) -> bool:
        """Goes on with other settings of its kind, if it can without an interruption. Returns whether it does."""
        return False

    @property
    def viewers(self) -> int | None:
        """How many watch; None where nobody can tell. From any thread."""
        return None

    @property
    def encoder(self) -> str | None:
        """The encoder's element; None where nothing is encoded. From any thread."""
        return None
