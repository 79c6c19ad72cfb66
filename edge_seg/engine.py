"""The frame loop: newest frame in, composited picture out, the model beside it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from edge_seg import slate
from edge_seg.backgrounds import Background, open_background
from edge_seg.budget import Controller, Plan, ladder
from edge_seg.config import Config
from edge_seg.frame_queue import FrameQueue
from edge_seg.geometry import output_size
from edge_seg.model_worker import MaskModel, ModelWorker
from edge_seg.outputs import Outputs, OutputStatus
from edge_seg.pacing import Pacer
from edge_seg.pipeline import Pipeline
from edge_seg.segmenter import needs_another, open_segmenter
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import Source, make_source
from edge_seg.supervisor import Supervisor
from edge_seg.tap import FrameTap
from edge_seg.timings import FrameRate, StageTimes
from edge_seg.types import I420, Frame, Mask, Matrix

log = logging.getLogger(__name__)

TAKE_TIMEOUT_S = 0.1
"""How often the loop looks up while no frame comes: the rate of the slate, and the delay of a stop."""

STOP_DEADLINE_S = 0.5
"""Each thread gets so long to end."""

EXACT_DEPTH = 8
"""Frames that may wait for their turn with mask_sync exact and the frames in between carried."""

MISS_LOG_INTERVAL_NS = 60_000_000_000

DEFAULT_FPS = Fraction(30)

SMALLEST_PX = 16
"""Frames with a shorter side are no pictures of anybody, and encoders refuse them."""


class FanOut(Protocol):
    """What hands pictures to the outputs: `Outputs`, or a test's."""

    def reformat(self, output: OutputFormat) -> None:
        """The pictures that follow have this format. The first call opens the outputs."""

    def push(self, picture: I420, captured_ns: int) -> None:
        """Takes one picture, captured at `captured_ns` (monotonic). Never blocks, and copies what it keeps, since
        the next frame is drawn into the same picture."""

    def tick(self) -> None:
        """Is called often. Raises what ends the daemon."""

    def status(self) -> list[OutputStatus]:
        """How each output goes."""

    def close(self) -> None:
        """Ends the outputs."""


class Model(MaskModel, Protocol):
    """A mask model that says what it is."""

    name: str
    runtime_name: str
    input_size: tuple[int, int]
    """(width, height) of the small pictures that it takes."""


@dataclass(frozen=True, slots=True)
class Status:
    """How it goes, since the start."""

    frames_captured: int
    frames_dropped: int
    """Captured, but replaced by newer ones before the loop came to them."""
    frames_out: int
    frame_rate: float
    """Frames a second that leave, over the newest few."""
    shown_ns: int | None
    """When the newest composited frame left, monotonic; None before the first. Cards are none."""
    source: str | None
    """What delivers now; None while nothing does."""
    source_cause: str | None
    """Why nothing does, where that is known."""
    source_outages: int
    """How often a source that had delivered was lost."""
    model: str | None
    """The model and what runs it; None before the first frame."""
    model_failing: bool
    """Whether its newest inference failed."""
    misses: int
    """Frames that left later than the budget allows."""
    model_runs: int
    mask_age_ms: float | None
    """From the newest frame that the model has seen to the frame shown last; None without a mask."""
    mask_age_frames: int | None
    plan: Plan
    plan_changes: int
    outputs: tuple[OutputStatus, ...]


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the loop works with while frames have one format."""

    output: OutputFormat
    pipeline: Pipeline
    worker: ModelWorker
    background: Background
    out: I420


class Engine:
    """Everything that runs while the daemon runs. `run` once, in any thread."""

    def __init__(
        self,
        config: Config,
        *,
        sinks: Sequence[Sink] | None = None,
        outputs: FanOut | None = None,
        build_source: Callable[[], Source] | None = None,
        build_model: Callable[[tuple[int, int]], Model] | None = None,
    ) -> None:
        """What is given by keyword replaces what the configuration says: the outputs (as sinks, or as what hands
        pictures to them), the source, the model for pictures of a (width, height)."""
        self._config = config
        self.times = StageTimes()
        self.tap = FrameTap(may_show_camera=config.web.show_camera)
        self.outputs: FanOut = outputs or Outputs(config.outputs if sinks is None else sinks)
        self.frames_out = 0
        self.shown_mask: Mask | None = None
        """The mask of the newest picture that left; None when that showed no person."""
        self._carries_between = config.mask_sync == "exact" and config.exact_between == "carried"
        self._queue: FrameQueue[Frame] = FrameQueue(EXACT_DEPTH if self._carries_between else 1)
        self._supervisor = Supervisor(
            build_source or (lambda: make_source(config.source, config.geometry)),
            self._queue,
            config.source.stale_ms,
            may_repeat=getattr(config.source, "repeats", "shown") == "shown",
        )
        self._build_model: Callable[[tuple[int, int]], Model] = build_model or (
            lambda size: open_segmenter(config.model, size)
        )
        self._controller = Controller(
            ladder(config.matte.quality, config.flow.block_px), round(config.latency.budget_ms * 1e6)
        )
        self._pacer = Pacer(round(config.latency.budget_ms * 1e6), self._controller)
        self._stage: _Stage | None = None
        self._output: OutputFormat | None = None
        """What the outputs are open for."""
        self._since_submitted = 0
        self._next_miss_log_ns = 0
        self._shown_ns = 0
        self._shown_captured_ns = 0
        self._plan_changes = 0
        self._rate = FrameRate()
        self._model_name: str | None = None

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises ConfigError, ModelError or SinkError when it cannot go on."""
        self._shown_ns = time.monotonic_ns()
        self._supervisor.start()
        try:
            while not stop.is_set():
                frame = self._queue.take(TAKE_TIMEOUT_S)
                if self._supervisor.fatal is not None:
                    raise self._supervisor.fatal
                self.outputs.tick()
                if frame is None:
                    self._show_slate()
                elif min(frame.picture.width, frame.picture.height) >= SMALLEST_PX:
                    frame = replace(frame, picture=frame.picture.even())
                    if self._adapt(frame):
                        continue  # that took longer than any budget: show the next one
                    self._show(frame, stop.is_set)
        finally:
            self._close()

    def status(self) -> Status:
        """How it goes. From any thread."""
        mask, captured_ns = self.shown_mask, self._shown_captured_ns
        source, stage = self._supervisor.source, self._stage
        return Status(
            frames_captured=self._supervisor.frames,
            frames_dropped=self._queue.dropped,
            frames_out=self.frames_out,
            frame_rate=self._rate.per_second(time.monotonic_ns()),
            shown_ns=self._shown_ns if self.frames_out else None,
            source=None if source is None else source.name,
            source_cause=self._supervisor.cause,
            source_outages=self._supervisor.outages,
            model=self._model_name,
            model_failing=stage is not None and stage.worker.failing,
            misses=self._pacer.misses,
            model_runs=stage.worker.runs if stage else 0,
            mask_age_ms=None if mask is None else (captured_ns - mask.observed_ns) / 1e6,
            mask_age_frames=None if mask is None else mask.seq - mask.observed_seq,
            plan=self._controller.plan,
            plan_changes=self._plan_changes,
            outputs=tuple(self.outputs.status()),
        )

    def _adapt(self, frame: Frame) -> bool:
        """Makes everything fit the format of the frame. Returns whether it did not already."""
        source, previous = self._supervisor.source, self._output
        fps = source.format.fps if source is not None else Fraction(0)
        if fps <= 0:
            fps = DEFAULT_FPS if previous is None else previous.fps
        picture = frame.picture
        output = OutputFormat(picture.width, picture.height, fps, picture.matrix)
        if self._stage is not None and output == self._stage.output:
            return False
        if self._stage is not None:
            log.info("the picture is now %dx%d at %.4g fps", output.width, output.height, output.fps)
        # The background first: when it cannot be opened, nothing else was changed.
        background = open_background(self._config.background, output.width, output.height, output.matrix)
        if self._stage is None:
            pipeline, worker = self._start_model(picture)
        else:
            pipeline, worker = self._same_or_another_model(self._stage, picture)
            self._stage.background.close()
            pipeline.reset()
        out = I420.allocate(output.width, output.height, output.matrix)
        self._stage = _Stage(output, pipeline, worker, background, out)
        self._open_outputs(output)
        return True

    def _open_outputs(self, output: OutputFormat) -> None:
        """Opens the outputs for this format, or tells them that it is another from now on."""
        previous, self._output = self._output, output
        if output != previous:
            self.outputs.reformat(output)

    def _same_or_another_model(self, stage: _Stage, picture: I420) -> tuple[Pipeline, ModelWorker]:
        """What `stage` has, or what this picture's shape asks for instead."""
        before, after = (stage.output.width, stage.output.height), (picture.width, picture.height)
        if not needs_another(self._config.model, before, after):
            return stage.pipeline, stage.worker
        pipeline, worker = self._start_model(picture)
        pipeline.spend(self._controller.plan)
        if not stage.worker.stop(STOP_DEADLINE_S):
            log.warning("the model before did not end within %g s; leaving it", STOP_DEADLINE_S)
        return pipeline, worker

    def _start_model(self, picture: I420) -> tuple[Pipeline, ModelWorker]:
        config, size = self._config, (picture.width, picture.height)
        segmenter = self._build_model(size)
        log.info(
            "model %s on %s, %dx%d, %d threads",
            segmenter.name, segmenter.runtime_name, *segmenter.input_size, config.model.threads,
        )  # fmt: skip
        self._model_name = f"{segmenter.name} on {segmenter.runtime_name}"
        pipeline = Pipeline(config, segmenter.input_size, self.times)
        worker = ModelWorker(segmenter, lambda: self._build_model(size), self.times)
        worker.start()
        return pipeline, worker

    def _show(self, frame: Frame, given_up: Callable[[], bool]) -> None:
        """One frame, from the queue to the outputs. `given_up` ends a wait for the model."""
        assert self._stage is not None
        worker, pipeline, out = self._stage.worker, self._stage.pipeline, self._stage.out
        started_ns = time.monotonic_ns()
        small = pipeline.shrink(frame)
        # With others waiting behind it, a frame that is to be shown in its turn is not worth a wait.
        is_between = self._carries_between and len(self._queue) > 0
        self._since_submitted += 1
        if not is_between and self._since_submitted >= self._controller.plan.model_every:
            worker.submit(small, frame.seq, frame.captured_ns)
            self._since_submitted = 0
        pipeline.track(frame, small)
        wait_started_ns = time.monotonic_ns()
        deadline_ns = (
            None if self._config.mask_sync == "exact" else self._pacer.mask_deadline_ns(frame.captured_ns)
        )
        masks = worker.collect(frame.seq, deadline_ns, given_up)
        tail_started_ns = time.monotonic_ns()
        self.times.record("wait", tail_started_ns - wait_started_ns)
        if worker.failing:
            pipeline.reset()  # fail closed at once, not when the last mask has grown old
        for mask in masks:
            pipeline.observe(mask)
        self.shown_mask = pipeline.render(frame, self._stage.background, out, tail_started_ns)
        with self.times.measure("push"):
            self.outputs.push(out, frame.captured_ns)
        if self.tap.is_asked:
            self.tap.offer(out, self.shown_mask, frame.picture)
        now_ns = time.monotonic_ns()
        work_ns = now_ns - tail_started_ns + wait_started_ns - started_ns
        self._account(frame, tail_started_ns, work_ns, now_ns)

    def _account(self, frame: Frame, tail_started_ns: int, work_ns: int, now_ns: int) -> None:
        """Notes how it went, and plans the next frames by it."""
        assert self._stage is not None
        self.frames_out += 1
        self._shown_ns = now_ns
        self._shown_captured_ns = frame.captured_ns
        self._rate.tick(now_ns)
        self.times.record("latency", now_ns - frame.captured_ns)
        if self.shown_mask is not None:
            self.times.record("mask age", frame.captured_ns - self.shown_mask.observed_ns)
        in_time, change = self._pacer.left(frame.captured_ns, tail_started_ns, work_ns, now_ns)
        if change is not None:
            self._plan_changes += 1
            log.info("%s: from now on %s", change.reason, change.plan)
            self._stage.pipeline.spend(change.plan)
        if not in_time and self._config.mask_sync == "budget" and now_ns >= self._next_miss_log_ns:
            self._next_miss_log_ns = now_ns + MISS_LOG_INTERVAL_NS
            log.warning(
                "a frame left %.1f ms after its capture, the budget is %g ms (%d of %d frames so far)",
                (now_ns - frame.captured_ns) / 1e6, self._config.latency.budget_ms, self._pacer.misses,
                self.frames_out,
            )  # fmt: skip

    def _show_slate(self) -> None:
        """While no frame comes: viewers stay, and see that the camera is gone. They can come before the first."""
        now_ns = time.monotonic_ns()
        is_lost = self._supervisor.cause is not None
        if not is_lost and now_ns - self._shown_ns < self._config.source.stale_ms * 1e6:
            return
        self.shown_mask = None
        if self._stage is not None:
            self._stage.pipeline.reset()
            card = self._stage.out
            slate.draw(card, "camera lost, retrying")
        else:
            if self._output is None:
                self._open_outputs(_expected_format(self._config))
            assert self._output is not None
            card = I420.allocate(self._output.width, self._output.height, self._output.matrix)
            slate.draw(card, "no camera yet, retrying")
        self.outputs.push(card, now_ns)
        if self.tap.is_asked:
            self.tap.offer(card, None, None)

    def _close(self) -> None:
        """Ends all threads and outputs, each within its deadline."""
        if not self._supervisor.stop(STOP_DEADLINE_S):
            log.warning("the source did not end within %g s; leaving it", STOP_DEADLINE_S)
        if self._stage is not None:
            if not self._stage.worker.stop(STOP_DEADLINE_S):
                log.warning("the model did not end within %g s; leaving it", STOP_DEADLINE_S)
            self._stage.background.close()
        self.outputs.close()


def _expected_format(config: Config) -> OutputFormat:
    """What pictures will probably look like, while there has been none."""
    source = config.source
    camera = getattr(source, "width", 1280), getattr(source, "height", 720)
    width, height = (side & ~1 for side in output_size(*camera, config.geometry))
    fps = Fraction(getattr(source, "fps", DEFAULT_FPS)).limit_denominator(1001)
    return OutputFormat(width, height, fps, Matrix.BT709 if height > 576 else Matrix.BT601)
