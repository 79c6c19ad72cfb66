"""What the frame loop works with while frames have one format: made, made anew, and exchanged piece by piece."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Protocol

import numpy as np

from edge_seg.backgrounds import Background, open_background
from edge_seg.budget import Plan
from edge_seg.config import Config
from edge_seg.errors import ConfigError, EdgeSegError
from edge_seg.geometry import output_size
from edge_seg.model_worker import MaskModel, ModelWorker
from edge_seg.pipeline import Pipeline
from edge_seg.pyramid import Yuv444
from edge_seg.reload import touches
from edge_seg.segmenter import needs_another, open_segmenter
from edge_seg.sinks.base import OutputFormat
from edge_seg.timings import StageTimes
from edge_seg.types import I420, Matrix

log = logging.getLogger(__name__)

STOP_DEADLINE_S = 0.5
"""Each thread gets so long to end."""

DEFAULT_FPS = Fraction(30)


class Model(MaskModel, Protocol):
    """A mask model that says what it is."""

    name: str
    runtime_name: str
    input_size: tuple[int, int]
    """(width, height) of the small pictures that it takes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the loop works with while frames have one format."""

    output: OutputFormat
    pipeline: Pipeline
    worker: ModelWorker
    model_name: str
    """The model and what runs it."""
    background: Background
    out: I420


@dataclass(slots=True)
class Prepared:
    """What a reload has made ready beside the frame loop."""

    output: OutputFormat
    """What it was made for."""
    background: Background | None = None
    model: Model | None = None

    def close(self) -> None:
        if self.background is not None:
            self.background.close()


class StageBuilder:
    """Makes stages. All but `prepare` is for the frame loop's thread."""

    def __init__(
        self, times: StageTimes, build_model: Callable[[tuple[int, int]], Model] | None = None
    ) -> None:
        """`build_model`, for pictures of a (width, height), replaces what the configuration says."""
        self._times = times
        self._given_model = build_model

    def first(self, config: Config, output: OutputFormat) -> Stage:
        """For the first frame. Raises ConfigError or ModelError."""
        background = open_background(config.background, output.width, output.height, output.matrix)
        model = self._open_model(config, (output.width, output.height))
        pipeline = Pipeline(config, model.input_size, self._times)
        worker = self._start_model(model, config, output)
        return Stage(output, pipeline, worker, _name(model), background, _picture(output))

    def reformatted(self, stage: Stage, config: Config, output: OutputFormat, plan: Plan) -> Stage:
        """For pictures of another format. What can stay stays. Raises ModelError."""
        background = _background_or_colour(config, output)
        before, after = (stage.output.width, stage.output.height), (output.width, output.height)
        if needs_another(config.model, before, after):
            model = self._open_model(config, after)
            pipeline = Pipeline(config, model.input_size, self._times)
            pipeline.spend(plan)
            if not stage.worker.stop(STOP_DEADLINE_S):
                log.warning("the model before did not end within %g s; leaving it", STOP_DEADLINE_S)
            worker = self._start_model(model, config, output)
            stage = replace(stage, pipeline=pipeline, worker=worker, model_name=_name(model))
        stage.background.close()
        stage.pipeline.reset()
        return replace(stage, output=output, background=background, out=_picture(output))

    def prepare(self, config: Config, keys: Sequence[str], output: OutputFormat) -> Prepared:
        """Opens what changes of these keys ask for. From any thread. Raises ConfigError or ModelError."""
        prepared = Prepared(output)
        if touches(keys, "background"):
            prepared.background = open_background(
                config.background, output.width, output.height, output.matrix
            )
        if touches(keys, "model"):
            try:
                prepared.model = model = self._open_model(config, (output.width, output.height))
                # The first inference takes longer than the others, and may fail.
                width, height = model.input_size
                grey = np.full((height, width), 128, np.uint8)
                model.infer(Yuv444(grey, grey, grey, output.matrix))
            except EdgeSegError:
                prepared.close()
                raise
        return prepared

    def changed(
        self, stage: Stage, config: Config, prepared: Prepared, plan: Plan
    ) -> tuple[Stage, list[Callable[[], object]]]:
        """The stage with what was prepared, and what is left to be closed elsewhere. Takes no time and cannot fail."""
        leftovers: list[Callable[[], object]] = []
        if prepared.model is not None:
            leftovers.append(partial(stage.worker.stop, STOP_DEADLINE_S))
            worker = self._start_model(prepared.model, config, prepared.output)
            stage = replace(stage, worker=worker, model_name=_name(prepared.model))
            if prepared.model.input_size != stage.pipeline.grid:
                stage = replace(stage, pipeline=Pipeline(config, prepared.model.input_size, self._times))
        if prepared.background is not None:
            leftovers.append(stage.background.close)
            stage = replace(stage, background=prepared.background)
        stage.pipeline.adjust(config)
        stage.pipeline.spend(plan)
        return stage, leftovers

    def _open_model(self, config: Config, size: tuple[int, int]) -> Model:
        return self._given_model(size) if self._given_model else open_segmenter(config.model, size)

    def _start_model(self, model: Model, config: Config, output: OutputFormat) -> ModelWorker:
        log.info("model %s, %dx%d, %d threads", _name(model), *model.input_size, config.model.threads)
        size = output.width, output.height
        worker = ModelWorker(model, lambda: self._open_model(config, size), self._times)
        worker.start()
        return worker


def expected_format(config: Config) -> OutputFormat:
    """What pictures will probably look like, while there has been none."""
    source = config.source
    camera = getattr(source, "width", 1280), getattr(source, "height", 720)
    width, height = (side & ~1 for side in output_size(*camera, config.geometry))
    fps = Fraction(getattr(source, "fps", DEFAULT_FPS)).limit_denominator(1001)
    return OutputFormat(width, height, fps, Matrix.BT709 if height > 576 else Matrix.BT601)


def _background_or_colour(config: Config, output: OutputFormat) -> Background:
    """The background, or its colour where its file has gone: that is no reason to end a daemon that runs."""
    try:
        return open_background(config.background, output.width, output.height, output.matrix)
    except ConfigError as error:
        log.error("the background cannot be opened again, its colour is shown instead: %s", error)
        colour = replace(config.background, type="colour")
        return open_background(colour, output.width, output.height, output.matrix)


def _name(model: Model) -> str:
    return f"{model.name} on {model.runtime_name}"


def _picture(output: OutputFormat) -> I420:
    return I420.allocate(output.width, output.height, output.matrix)
