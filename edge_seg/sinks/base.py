"""What every output is to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from edge_seg.types import I420, Matrix


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """What the pictures of an output look like. Width and height are even: encoders need it."""

    width: int
    height: int
    fps: Fraction
    matrix: Matrix


class Sink(Protocol):
    """An output. It never makes the frame loop wait: what it cannot take at once, it drops."""

    name: str

    def open(self, output: OutputFormat) -> None:
        """Makes the output reachable. Raises SinkError."""

    def reformat(self, output: OutputFormat) -> None:
        """The pictures that follow have another format; viewers stay."""

    def push(self, picture: I420, captured_ns: int) -> None:
        """Takes one picture, captured at `captured_ns` (monotonic). Never blocks; copies what it keeps,
        since the next frame is drawn into the same picture."""

    def close(self) -> None:
        """Ends the output within a second. May be called twice."""
