"""Takes the frames of a recording through the stages, each with its own mask, in order and without a clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from edge_seg.backgrounds import open_background
from edge_seg.config import Config
from edge_seg.conversion.recording import Recording
from edge_seg.errors import ConfigError
from edge_seg.model_worker import MaskModel
from edge_seg.pipeline import Pipeline
from edge_seg.pyramid import Yuv444
from edge_seg.segmenter import open_segmenter
from edge_seg.sinks.base import OutputFormat
from edge_seg.timings import StageTimes
from edge_seg.types import F32, I420, Frame, Mask

AHEAD = 3
"""Frames that the model may have before it, while the one before them is drawn."""
SMALLEST_PX = 16


class _Model(MaskModel, Protocol):
    input_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Converted:
    """A finished picture."""

    picture: I420
    """Valid until the next one is asked for."""
    pts_ns: int
    duration_ns: int
    """0 where the recording does not say."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    frame: Frame
    duration_ns: int
    small: Yuv444
    probability: Future[F32]


class Converter:
    """The stages for one recording, which is open. What comes out depends on nothing but what goes in."""

    def __init__(
        self,
        config: Config,
        recording: Recording,
        build_model: Callable[[tuple[int, int]], _Model] | None = None,
    ) -> None:
        """Raises ConfigError and ModelError."""
        shape = recording.format
        # Encoders need even sizes.
        width, height = shape.width & ~1, shape.height & ~1
        if min(width, height) < SMALLEST_PX:
            raise ConfigError(
                f"{recording.name}: {shape.width}x{shape.height} is too small, 16 pixels are least"
            )
        self.output = OutputFormat(width, height, shape.fps or Fraction(0), shape.matrix)
        self.times = StageTimes()
        self._recording = recording
        build = build_model or (lambda size: open_segmenter(config.model, size))
        self._model = build((width, height))
        self._pipeline = Pipeline(config, self._model.input_size, self.times)
        self._background = open_background(config.background, width, height, shape.matrix)
        self._background.may_wait = True

    def pictures(self, given_up: Callable[[], bool] = lambda: False) -> Iterator[Converted]:
        """Every frame of the recording, composited. Raises SourceLost and ModelError."""
        out = I420.allocate(self.output.width, self.output.height, self.output.matrix)
        waiting: deque[_Waiting] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="model") as model:
            for frame, duration_ns in self._recording.frames(given_up):
                whole = replace(frame, picture=frame.picture.even())
                small = self._pipeline.shrink(whole)
                waiting.append(_Waiting(whole, duration_ns, small, model.submit(self._model.infer, small)))
                if len(waiting) > AHEAD:
                    yield self._draw(waiting.popleft(), out)
            while waiting and not given_up():
                yield self._draw(waiting.popleft(), out)

    def _draw(self, one: _Waiting, out: I420) -> Converted:
        frame, pipeline = one.frame, self._pipeline
        pipeline.track(frame, one.small)
        with self.times.measure("wait"):
            probability = one.probability.result()
        # The clock is the recording's own: no mask is ever old, and a background video keeps step with the picture.
        now_ns = frame.captured_ns
        pipeline.observe(Mask(probability, seq=frame.seq, observed_seq=frame.seq, observed_ns=now_ns))
        pipeline.render(frame, self._background, out, now_ns)
        return Converted(out, now_ns, one.duration_ns)

    def close(self) -> None:
        """May be called twice."""
        self._background.close()
