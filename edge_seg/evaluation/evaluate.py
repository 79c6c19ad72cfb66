"""Every sequence through the model and every method: figures, and what the report and the dump need."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_seg.errors import ConfigError
from edge_seg.evaluation import late, metrics
from edge_seg.evaluation.clip import Clip, Tick, load
from edge_seg.evaluation.masks import model_masks
from edge_seg.evaluation.methods import METHODS, Settings, run
from edge_seg.evaluation.metrics import PerFrame, Scores
from edge_seg.evaluation.sequences import Sequence
from edge_seg.model_card import ModelSettings, resolve_model
from edge_seg.segmenter import Segmenter
from edge_seg.types import F32


@dataclass(frozen=True)
class Plan:
    """What is to be evaluated."""

    methods: tuple[str, ...] = METHODS
    late: bool = False
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    base: Path | None = None
    """What a relative path in `model` is relative to."""
    ours: Settings = dataclasses.field(default_factory=Settings)
    cache: Path | None = None
    dump: Path | None = None

    @property
    def ticks_per_frame(self) -> int:
        """How often the progress bar moves for one frame: reading, the model, each method and its figures."""
        runs = len(self.methods) + self.late * len(late.METHODS) * len(late.DELAYS)
        return 2 + 2 * runs


@dataclass(frozen=True, eq=False)
class Result:
    """One clip: what each method made of it."""

    clip: Clip
    masks: dict[str, F32]
    """By method. Shape of each: (frames, rows, cols), float32 in [0, 1]."""
    figures: dict[str, PerFrame]
    """By method."""
    late: dict[str, dict[str, Scores]]
    """By delay, then by method."""

    @property
    def scores(self) -> dict[str, Scores]:
        return {method: metrics.summary(figures) for method, figures in self.figures.items()}


class Segmenters:
    """The segmenter for pictures of a size, and what identifies its model. Each model is loaded once."""

    def __init__(self, settings: ModelSettings, base: Path | None) -> None:
        self._settings, self._base = settings, base
        self._loaded: dict[tuple[str, tuple[int, int]], Segmenter] = {}
        self._identity: dict[int, str] = {}

    def __call__(self, picture_size: tuple[int, int]) -> Segmenter:
        card = resolve_model(self._settings.file, picture_size, self._settings.card, self._base)
        # Only a letterboxed model cares for the size of the pictures.
        key = (str(card.file), picture_size if card.input.letterbox else (0, 0))
        if key not in self._loaded:
            segmenter = self._loaded[key] = Segmenter(card, self._settings, picture_size)
            content = hashlib.sha256(card.file.read_bytes()).hexdigest()
            self._identity[id(segmenter)] = f"{content} {card.input!r} {card.output!r}"
        return self._loaded[key]

    def identity(self, segmenter: Segmenter) -> str:
        return self._identity[id(segmenter)]


def evaluate(sequences: Iterable[Sequence], plan: Plan, tick: Tick) -> Iterator[Result]:
    """The result of each sequence, one after the other."""
    segmenters = Segmenters(plan.model, plan.base)
    for sequence in sequences:
        clip, segmenter = load(sequence, segmenters, tick)
        model = model_masks(clip, segmenter, segmenters.identity(segmenter), plan.cache, tick)
        by_method: dict[str, F32] = {}
        figures: dict[str, PerFrame] = {}
        for method in plan.methods:
            by_method[method] = run(method, clip, model, plan.ours, tick)
            figures[method] = metrics.per_frame(by_method[method], clip.truth, tick)
            _dump(by_method[method], clip, plan.dump, method)
        yield Result(clip, by_method, figures, _late(clip, plan, tick) if plan.late else {})


def _late(clip: Clip, plan: Plan, tick: Tick) -> dict[str, dict[str, Scores]]:
    out: dict[str, dict[str, Scores]] = {}
    for delay in late.DELAYS:
        out[str(delay)] = {}
        for method in late.METHODS:
            shown = late.run(method, clip, delay, plan.ours, tick)
            out[str(delay)][method] = metrics.summary(metrics.per_frame(shown, clip.truth, tick))
            _dump(shown, clip, plan.dump, f"late/{delay}/{method}")
    return out


def _dump(masks: F32, clip: Clip, folder: Path | None, method: str) -> None:
    """Writes `folder/CLIP/METHOD/NNNNN.png`, 8-bit gray."""
    if folder is None:
        return
    into = folder / clip.name / method
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{into}: cannot be made: {error.strerror}") from error
    for label, mask in zip(clip.labels, masks, strict=True):
        path = into / f"{label}.png"
        if not cv2.imwrite(str(path), np.rint(mask * 255).astype(np.uint8)):
            raise ConfigError(f"{path}: cannot be written")


def means(results: Iterable[Mapping[str, Scores]]) -> dict[str, Scores]:
    """The mean over clips, by method."""
    results = list(results)
    return {method: metrics.mean(result[method] for result in results) for method in results[0]}
