"""Fail closed: whatever the model does, no viewer sees more of the room than the mask in force lets through."""

import random
import threading
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from edge_seg import model_worker
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config, PrivacySettings
from edge_seg.engine import Engine
from edge_seg.errors import ModelError
from edge_seg.pyramid import Yuv444
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sources import SourceFormat, SyntheticSettings
from edge_seg.types import F32, I420, Frame, Matrix
from tests.direct import DirectOutputs

WIDTH, HEIGHT = 128, 72
GRID = (64, 36)
ROOM, PERSON = 220, 120
BACKGROUND = "#000000"
BACKGROUND_LUMA = 16

REACH_PX = 9
"""How far, in pixels of the mask, the matte may look for an edge: its window and its smoothing, twice."""

MAX_AGE_MS = 60


def person_left(seq: int) -> int:
    return int(40 + 30 * np.sin(seq / 15))


class Room:
    """A dark person who sways in a bright room, as fast as frames are taken."""

    name = "room"
    live = True
    format = SourceFormat(WIDTH, HEIGHT, Fraction(30), Matrix.BT709)

    def __init__(self) -> None:
        self._seq = 0

    def open(self) -> None:
        pass

    def read(self, timeout_ns: int) -> Frame | None:
        time.sleep(0.0005)
        picture = I420.filled(WIDTH, HEIGHT, (ROOM, 128, 128))
        left = person_left(self._seq)
        picture.y[20:, left : left + 30] = PERSON
        self._seq += 1
        return Frame(picture, self._seq - 1, time.monotonic_ns())

    def close(self) -> None:
        pass


class MoodyModel:
    """Sees the person well, when it does not stall or crash."""

    name = "moody"
    runtime_name = "none"
    input_size = GRID

    def __init__(self, moods: random.Random, moody: threading.Event) -> None:
        self._moods, self._moody = moods, moody

    def infer(self, small: Yuv444) -> F32:
        mood = self._moods.random() if self._moody.is_set() else 0.5
        if mood < 0.02:
            raise ModelError("crashed")
        if mood < 0.04:
            time.sleep(2 * MAX_AGE_MS / 1000)
        elif mood < 0.3:
            time.sleep(self._moods.uniform(0, 0.02))
        return (np.abs(small.y.astype(np.float32) - PERSON) < 40).astype(np.float32)


class Inspector(Sink):
    """Looks at every picture that leaves."""

    name = "inspector"

    def __init__(self, wanted: int, enough: threading.Event) -> None:
        self.engine: Engine | None = None
        self.without_mask = self.with_mask = 0
        self.worst_leak = 0.0
        """Pixels of the room where the mask in force has nobody, in 1/1000 of the frame."""
        self.oldest_ms = 0.0
        self._wanted, self._enough = wanted, enough

    def open(self, output: OutputFormat) -> None:
        pass

    def reformat(self, output: OutputFormat) -> None:
        pass

    def push(self, picture: I420, captured_ns: int) -> None:
        assert self.engine is not None
        mask = self.engine.shown_mask
        shown = np.abs(picture.y.astype(int) - BACKGROUND_LUMA) > 2
        if mask is None:
            self.without_mask += 1
        else:
            self.with_mask += 1
            self.oldest_ms = max(self.oldest_ms, (captured_ns - mask.observed_ns) / 1e6)
            kernel = np.ones((2 * REACH_PX + 1, 2 * REACH_PX + 1), np.uint8)
            allowed = cv2.dilate((mask.probability > 0.02).astype(np.uint8), kernel)
            allowed = cv2.resize(allowed, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
            shown &= allowed == 0
        self.worst_leak = max(self.worst_leak, 1000 * float(shown.mean()))
        if self.with_mask + self.without_mask >= self._wanted:
            self._enough.set()

    def close(self) -> None:
        pass


@pytest.mark.timeout(300)
def test_ten_thousand_frames_of_a_model_that_stalls_and_crashes_leak_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_worker, "RETRY_S", 0.01)
    moods, moody, enough = random.Random(7), threading.Event(), threading.Event()
    inspector = Inspector(10_000, enough)
    config = Config(
        source=SyntheticSettings(),
        background=BackgroundSettings(type="colour", colour=BACKGROUND),
        privacy=PrivacySettings(max_mask_age_ms=MAX_AGE_MS),
    )
    engine = Engine(
        config,
        outputs=DirectOutputs(inspector),
        build_source=Room,
        build_model=lambda _: MoodyModel(moods, moody),
    )
    inspector.engine = engine
    moody.set()
    engine.run(enough)
    assert inspector.worst_leak == 0
    # Both happened often, or nothing was tested.
    assert inspector.with_mask > 1000
    assert inspector.without_mask > 100
    assert inspector.oldest_ms <= MAX_AGE_MS


def test_an_open_configuration_shows_the_room_where_a_closed_one_does_not() -> None:
    class BlindModel(MoodyModel):
        def infer(self, small: Yuv444) -> F32:
            raise ModelError("blind")

    worst = {}
    for mode in ("closed", "open"):
        enough = threading.Event()
        inspector = Inspector(20, enough)
        config = Config(
            source=SyntheticSettings(),
            background=BackgroundSettings(type="colour", colour=BACKGROUND),
            privacy=PrivacySettings(mode=mode),  # type: ignore[arg-type]
        )
        inspector.engine = Engine(
            config,
            outputs=DirectOutputs(inspector),
            build_source=Room,
            build_model=lambda _: BlindModel(random.Random(0), threading.Event()),
        )
        inspector.engine.run(enough)
        worst[mode] = inspector.worst_leak
    assert worst == {"closed": 0, "open": 1000}
