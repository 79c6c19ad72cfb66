"""The frame loop with a model of any speed: what leaves, when, and with which mask."""

import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest

from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config, LatencySettings
from edge_seg.engine import Engine
from edge_seg.pyramid import Yuv444
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import SourceFormat, SyntheticSettings
from edge_seg.types import F32, I420, Frame, Mask, Matrix
from tests.direct import DirectOutputs

WIDTH, HEIGHT = 64, 48
FPS = 50


class Metronome:
    """Frames by the clock, whose luma is their number."""

    name = "metronome"
    live = True

    def __init__(self, sizes: tuple[tuple[int, int], ...] = ((WIDTH, HEIGHT),)) -> None:
        self._sizes = sizes
        self._seq = 0
        self._next_s = time.monotonic()

    @property
    def format(self) -> SourceFormat:
        return SourceFormat(*self._size(), Fraction(FPS), Matrix.BT709)

    def _size(self) -> tuple[int, int]:
        return self._sizes[min(self._seq // 50, len(self._sizes) - 1)]

    def open(self) -> None:
        pass

    def read(self, timeout_ns: int) -> Frame | None:
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s += 1 / FPS
        picture = I420.filled(*self._size(), (self._seq % 200 + 20, 128, 128))
        self._seq += 1
        return Frame(picture, self._seq - 1, time.monotonic_ns())

    def close(self) -> None:
        pass


class Model:
    """Sees a person everywhere, after a while."""

    name = "everywhere"
    runtime_name = "none"

    def __init__(self, takes_s: float, input_size: tuple[int, int] = (32, 24)) -> None:
        self._takes_s = takes_s
        self.input_size = input_size

    def infer(self, small: Yuv444) -> F32:
        time.sleep(self._takes_s)
        return np.ones(self.input_size[::-1], np.float32)


class Recorder(Sink):
    """Remembers each picture's number, mask and size."""

    name = "recorder"

    def __init__(self, wanted: int) -> None:
        self.engine: Engine | None = None
        self.shown: list[tuple[int, Mask | None]] = []
        self.sizes: list[tuple[int, int]] = []
        self.enough = threading.Event()
        self._wanted = wanted

    def open(self, output: OutputFormat) -> None:
        pass

    def reformat(self, output: OutputFormat) -> None:
        pass

    def push(self, picture: I420, captured_ns: int) -> None:
        assert self.engine is not None
        mask = self.engine.shown_mask
        if mask is not None:
            self.shown.append((int(np.median(picture.y)) - 20, mask))
            self.sizes.append((picture.width, picture.height))
        if len(self.shown) >= self._wanted:
            self.enough.set()

    def close(self) -> None:
        pass


def run(wanted: int, takes_s: float, **settings: Any) -> tuple[Recorder, Engine]:
    recorder = Recorder(wanted)
    engine = Engine(
        Config(source=SyntheticSettings(), **settings),
        outputs=DirectOutputs(recorder),
        build_source=Metronome,
        build_model=lambda _: Model(takes_s),
    )
    recorder.engine = engine
    timer = threading.Timer(60, recorder.enough.set)
    timer.start()
    engine.run(recorder.enough)
    timer.cancel()
    assert len(recorder.shown) >= wanted
    return recorder, engine


def test_every_picture_is_blended_with_the_mask_of_its_own_frame() -> None:
    recorder, _ = run(100, 0.03)
    assert all(mask is not None and mask.seq % 200 == number for number, mask in recorder.shown)


def test_with_a_budget_a_slow_model_does_not_slow_the_picture() -> None:
    recorder, engine = run(100, 0.15, latency=LatencySettings(budget_ms=20))
    numbers = [number for number, _ in recorder.shown]
    assert len(set(numbers)) == len(numbers)
    carried = [mask for _, mask in recorder.shown if mask is not None and mask.observed_seq < mask.seq]
    assert len(carried) > 80
    assert engine.status().model_runs < 60


def test_exact_shows_only_frames_with_a_mask_of_their_own_in_order() -> None:
    recorder, engine = run(20, 0.07, mask_sync="exact")
    seqs = [mask.seq for _, mask in recorder.shown if mask is not None]
    assert seqs == sorted(set(seqs))
    assert all(mask is not None and mask.observed_seq == mask.seq for _, mask in recorder.shown)
    assert engine.status().frames_dropped > 20


def test_exact_with_frames_between_carried_shows_them_all_in_order() -> None:
    recorder, engine = run(60, 0.07, mask_sync="exact", exact_between="carried")
    seqs = [mask.seq for _, mask in recorder.shown if mask is not None]
    own = [mask for _, mask in recorder.shown if mask is not None and mask.observed_seq == mask.seq]
    assert seqs == sorted(set(seqs))
    assert 5 < len(own) < 50
    assert engine.status().frames_dropped < 30


def test_a_source_that_changes_its_size_is_followed() -> None:
    recorder = Recorder(120)
    engine = Engine(
        Config(source=SyntheticSettings()),
        outputs=DirectOutputs(recorder),
        build_source=lambda: Metronome(((WIDTH, HEIGHT), (81, 63))),
        build_model=lambda _: Model(0.001),
    )
    recorder.engine = engine
    timer = threading.Timer(60, recorder.enough.set)
    timer.start()
    engine.run(recorder.enough)
    timer.cancel()
    assert {(WIDTH, HEIGHT), (80, 62)} == set(recorder.sizes)


def test_a_picture_that_turns_upright_gets_the_model_for_upright_pictures() -> None:
    recorder = Recorder(170)
    built = []

    def build(size: tuple[int, int]) -> Model:
        built.append(size)
        return Model(0.001, (32, 24) if size[0] > size[1] else (24, 32))

    engine = Engine(
        Config(source=SyntheticSettings()),
        outputs=DirectOutputs(recorder),
        build_source=lambda: Metronome(((WIDTH, HEIGHT), (80, 60), (HEIGHT, WIDTH))),
        build_model=build,
    )
    recorder.engine = engine
    timer = threading.Timer(60, recorder.enough.set)
    timer.start()
    engine.run(recorder.enough)
    timer.cancel()
    assert built == [(WIDTH, HEIGHT), (HEIGHT, WIDTH)], "one for the wide sizes, one for the upright one"
    masks = dict(zip(recorder.sizes, (mask for _, mask in recorder.shown), strict=True))
    assert {size: mask.probability.shape for size, mask in masks.items() if mask is not None} == {
        (WIDTH, HEIGHT): (24, 32),
        (80, 60): (24, 32),
        (HEIGHT, WIDTH): (32, 24),
    }


@pytest.mark.parametrize("mask_sync", ["budget", "exact"])
def test_the_engine_ends_soon_though_the_model_hangs(mask_sync: Literal["budget", "exact"]) -> None:
    stop = threading.Event()
    recorder = Recorder(10**9)
    engine = Engine(
        Config(source=SyntheticSettings(), mask_sync=mask_sync),
        outputs=DirectOutputs(recorder),
        build_source=Metronome,
        build_model=lambda _: Model(5),
    )
    recorder.engine = engine
    timer = threading.Timer(1, stop.set)
    timer.start()
    started = time.monotonic()
    engine.run(stop)
    assert time.monotonic() - started < 4
    assert mask_sync == "exact" or engine.frames_out > 5


def test_a_background_whose_file_has_gone_is_its_colour_when_the_picture_changes_its_size(
    tmp_path: Path,
) -> None:
    """A daemon that runs is not ended by it, least of all with the status that forbids a restart."""
    paper = tmp_path / "paper.png"
    cv2.imwrite(str(paper), np.full((40, 60, 3), 90, np.uint8))
    recorder = Recorder(120)

    def vanish(_: object) -> Model:
        paper.unlink()
        return Model(0.001)

    engine = Engine(
        Config(source=SyntheticSettings(), background=BackgroundSettings(type="image", path=paper)),
        outputs=DirectOutputs(recorder),
        build_source=lambda: Metronome(((WIDTH, HEIGHT), (81, 63))),
        build_model=vanish,
    )
    recorder.engine = engine
    timer = threading.Timer(60, recorder.enough.set)
    timer.start()
    engine.run(recorder.enough)
    timer.cancel()
    assert (80, 62) in recorder.sizes
