"""The frame loop: newest frame in, composited picture out, the model beside it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

from edge_seg import slate
from edge_seg.between_frames import BetweenFrames
from edge_seg.budget import Controller, ladder
from edge_seg.config import Config
from edge_seg.departures import Departures
from edge_seg.errors import EdgeSegError
from edge_seg.frame_queue import FrameQueue
from edge_seg.outputs import FanOut, Outputs
from edge_seg.pacing import Pacer
from edge_seg.reload import Change, ReloadReport, touches
from edge_seg.reloader import Leftovers, Reloader
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import Source, make_source
from edge_seg.stage import DEFAULT_FPS, STOP_DEADLINE_S, Model, Prepared, Stage, StageBuilder, expected_format
from edge_seg.status import Status
from edge_seg.supervisor import Supervisor
from edge_seg.tap import FrameTap
from edge_seg.timings import StageTimes
from edge_seg.types import I420, Frame, Mask

log = logging.getLogger(__name__)

TAKE_TIMEOUT_S = 0.1
"""How often the loop looks up while no frame comes: the rate of the slate, and the delay of a stop."""

EXACT_DEPTH = 8
"""Frames that may wait for their turn with mask_sync exact and the frames in between carried."""

SMALLEST_PX = 16
"""Frames with a shorter side are no pictures of anybody, and encoders refuse them."""


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
        self._between = BetweenFrames()
        self._reloader = Reloader(
            config,
            self._prepare,
            lambda *changed: self._between.do(partial(self._take_over, *changed)),
        )
        self.followers = self._reloader.followers
        self.followers["outputs"] = lambda new: self.outputs.apply(new.outputs)
        self.times = StageTimes()
        self.tap = FrameTap(may_show_camera=config.web.show_camera)
        self.outputs: FanOut = outputs or Outputs(config.outputs if sinks is None else sinks)
        self.shown_mask: Mask | None = None
        """The mask of the newest picture that left; None when that showed no person."""
        self._carries_between = _carries_between(config)
        self._queue: FrameQueue[Frame] = FrameQueue(EXACT_DEPTH if self._carries_between else 1)
        self._build_source: Callable[[], Source] = build_source or (
            lambda: make_source(self._config.source, self._config.geometry)
        )
        self._supervisor = Supervisor(self._build_source, self._queue, *_loss_terms(config))
        self._builder = StageBuilder(self.times, build_model)
        self._controller = _controller(config)
        self._pacer = Pacer(_budget_ns(config), self._controller)
        self._stage: Stage | None = None
        self._output: OutputFormat | None = None
        """What the outputs are open for."""
        self._break_seq = 0
        self._since_submitted = 0
        self._departures = Departures(self.times)
        self._began_ns = 0
        self._plan_changes = 0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises ConfigError, ModelError or SinkError when it cannot go on."""
        self._began_ns = time.monotonic_ns()
        self._supervisor.start()
        try:
            while not stop.is_set():
                self._between.work_off()
                frame = self._queue.take(TAKE_TIMEOUT_S)
                self._raise_defects()
                self.outputs.tick()
                if frame is None:
                    self._show_slate()
                elif min(frame.picture.width, frame.picture.height) >= SMALLEST_PX:
                    frame = replace(frame, picture=frame.picture.even())
                    if self._adapt(frame):
                        continue  # that took longer than any budget: show the next one
                    self._show(frame, lambda: stop.is_set() or self._between.is_overdue())
        finally:
            self._close()

    def _raise_defects(self) -> None:
        """What no retry will mend: the daemon ends, and whoever started it starts it again."""
        is_watched = self._supervisor.is_alive  # first: it ends with a `fatal`, too
        if self._supervisor.fatal is not None:
            raise self._supervisor.fatal
        if not is_watched:
            raise EdgeSegError("the source's supervisor has died of a defect (see the traceback above)")
        if self._stage is not None and not self._stage.worker.is_alive:
            raise EdgeSegError("the model's thread has died of a defect (see the traceback above)")

    def status(self) -> Status:
        """How it goes. From any thread."""
        mask, left = self.shown_mask, self._departures
        source, stage = self._supervisor.source, self._stage
        return Status(
            frames_captured=self._supervisor.frames,
            frames_dropped=self._queue.dropped,
            frames_out=left.frames,
            frame_rate=left.per_second(time.monotonic_ns()),
            shown_ns=left.shown_ns,
            left_ns=left.left_ns,
            source=None if source is None else source.name,
            source_cause=self._supervisor.cause,
            source_outages=self._supervisor.outages,
            model=None if stage is None else stage.model_name,
            model_failing=stage is not None and stage.worker.failing,
            misses=self._pacer.misses,
            model_runs=stage.worker.runs if stage else 0,
            mask_age_ms=None if mask is None else (left.captured_ns - mask.observed_ns) / 1e6,
            mask_age_frames=None if mask is None else mask.seq - mask.observed_seq,
            plan=self._controller.plan,
            plan_changes=self._plan_changes,
            outputs=tuple(self.outputs.status()),
        )

    @property
    def frames_out(self) -> int:
        """Frames that have left; cards are none."""
        return self._departures.frames

    @property
    def config(self) -> Config:
        """What it works by now."""
        return self._config

    def reload(self, config: Config) -> ReloadReport:
        """Works as `config` says from the next frame on, with the least restart. From any thread but its own.

        What takes time is made ready beside the frame loop. Raises EdgeSegError (ConfigError, ModelError) where
        something cannot be opened; then everything is as it was.
        """
        return self._reloader.reload(config)

    def _prepare(self, config: Config, keys: Sequence[str]) -> Prepared:
        output = expected_format(config) if self._stage is None else self._stage.output
        return self._builder.prepare(config, keys, output)

    def _take_over(self, config: Config, changes: Sequence[Change], prepared: Prepared) -> Leftovers | None:
        """Between two frames: nothing here takes long or can fail. Returns what is left to be closed elsewhere; None
        where the picture's format is another since it was prepared, and nothing is done."""
        stage = self._stage
        if stage is not None and prepared.output != stage.output:
            return None
        keys = [change.key for change in changes]
        leftovers: Leftovers = []
        self._config = config
        self.tap.allow(config.web.show_camera)
        if touches(keys, "latency", "matte.quality", "flow.block_px"):
            self._controller = _controller(config)
            self._pacer.adjust(_budget_ns(config), self._controller)
        if touches(keys, "mask_sync", "exact_between"):
            self._carries_between = _carries_between(config)
            self._queue.resize(EXACT_DEPTH if self._carries_between else 1)
        if stage is None:
            # No picture has come yet: what could be opened is opened again for it.
            leftovers.append(prepared.close)
        else:
            self._stage, leftovers = self._builder.changed(stage, config, prepared, self._controller.plan)
        if any(change.effect == "source" for change in changes):
            self._supervisor.renew(self._build_source, *_loss_terms(config))
        else:
            if touches(keys, "geometry"):
                self._supervisor.place(config.geometry)
            if touches(keys, "source"):
                self._supervisor.judge(*_loss_terms(config))
        return leftovers

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
        if self._stage is None:
            self._stage = self._builder.first(self._config, output)
        else:
            self._stage = self._builder.reformatted(self._stage, self._config, output, self._controller.plan)
        self._open_outputs(output)
        return True

    def _open_outputs(self, output: OutputFormat) -> None:
        """Opens the outputs for this format, or tells them that it is another from now on."""
        previous, self._output = self._output, output
        if output != previous:
            self.outputs.reformat(output)

    def _show(self, frame: Frame, given_up: Callable[[], bool]) -> None:
        """One frame, from the queue to the outputs. `given_up` ends a wait for the model."""
        assert self._stage is not None
        worker, pipeline, out = self._stage.worker, self._stage.pipeline, self._stage.out
        started_ns = time.monotonic_ns()
        break_seq = self._supervisor.break_seq
        if self._break_seq != break_seq and frame.seq >= break_seq:
            self._break_seq = break_seq
            pipeline.reset()
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
        self._departures.frame(frame, self.shown_mask, now_ns)
        in_time, change = self._pacer.left(frame.captured_ns, tail_started_ns, work_ns, now_ns)
        if change is not None:
            self._plan_changes += 1
            log.info("%s: from now on %s", change.reason, change.plan, extra={"event": "plan"})
            self._stage.pipeline.spend(change.plan)
        if not in_time and self._config.mask_sync == "budget":
            self._departures.missed(self._config.latency.budget_ms, self._pacer.misses, now_ns)

    def _show_slate(self) -> None:
        """While no frame comes: viewers stay, and see that the camera is gone. They can come before the first."""
        now_ns = time.monotonic_ns()
        is_lost = self._supervisor.cause is not None
        shown_ns = self._departures.shown_ns or self._began_ns
        if not is_lost and now_ns - shown_ns < self._config.source.stale_ms * 1e6:
            return
        self.shown_mask = None
        if self._stage is not None:
            self._stage.pipeline.reset()
            card = self._stage.out
            slate.draw(card, "camera lost, retrying")
        else:
            if self._output is None:
                self._open_outputs(expected_format(self._config))
            assert self._output is not None
            card = I420.allocate(self._output.width, self._output.height, self._output.matrix)
            slate.draw(card, "no camera yet, retrying")
        self.outputs.push(card, now_ns)
        self._departures.card(now_ns)
        if self.tap.is_asked:
            self.tap.offer(card, None, None)

    def _close(self) -> None:
        """Ends all threads and outputs, each within its deadline."""
        self._between.close()
        if not self._supervisor.stop(STOP_DEADLINE_S):
            log.warning("the source did not end within %g s; leaving it", STOP_DEADLINE_S)
        if self._stage is not None:
            if not self._stage.worker.stop(STOP_DEADLINE_S):
                log.warning("the model did not end within %g s; leaving it", STOP_DEADLINE_S)
            self._stage.background.close()
        self.outputs.close()


def _budget_ns(config: Config) -> int:
    return round(config.latency.budget_ms * 1e6)


def _controller(config: Config) -> Controller:
    return Controller(ladder(config.matte.quality, config.flow.block_px), _budget_ns(config))


def _carries_between(config: Config) -> bool:
    return config.mask_sync == "exact" and config.exact_between == "carried"


def _loss_terms(config: Config) -> tuple[int, bool]:
    """When the source counts as lost: after how many ms, and whether it may repeat its pictures."""
    return config.source.stale_ms, getattr(config.source, "repeats", "shown") == "shown"
