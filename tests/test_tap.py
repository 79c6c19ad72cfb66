import random
import threading
import time

import numpy as np
import pytest

from edge_seg import model_worker
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config, PrivacySettings
from edge_seg.engine import Engine
from edge_seg.sinks.base import OutputFormat
from edge_seg.sources import SyntheticSettings
from edge_seg.tap import FrameTap, Tapped
from edge_seg.types import I420, U8, Mask
from tests.direct import DirectOutputs
from tests.test_privacy import MAX_AGE_MS, MoodyModel, Room

ROOM, SHOWN = I420.filled(32, 16, (200, 128, 128)), I420.filled(32, 16, (60, 128, 128))
MASK = Mask(np.ones((4, 8), np.float32), seq=1, observed_seq=1, observed_ns=0)


def test_a_frame_is_handed_over_once_for_each_time_it_is_asked_for() -> None:
    tap, got = FrameTap(), list[Tapped]()
    tap.offer(SHOWN, MASK, ROOM)
    assert not got
    tap.ask(got.append)
    assert tap.is_asked
    tap.offer(SHOWN, MASK, ROOM)
    tap.offer(SHOWN, MASK, ROOM)
    assert not tap.is_asked
    assert len(got) == 1
    assert got[0].mask is MASK
    assert got[0].output is not SHOWN  # the frame loop draws the next frame into that one
    assert np.array_equal(got[0].output.y, SHOWN.y)


def test_the_room_leaves_only_where_that_is_allowed_and_asked_for() -> None:
    for allowed in (False, True):
        for asked in (False, True):
            tap, got = FrameTap(may_show_camera=allowed), list[Tapped]()
            tap.ask(got.append, camera=asked)
            tap.offer(SHOWN, MASK, ROOM)
            assert (got[0].camera is not None) == (allowed and asked)


def test_pictures_of_another_size_and_cards_are_handed_over_as_well() -> None:
    tap, got = FrameTap(may_show_camera=True), list[Tapped]()
    for card in (SHOWN, I420.filled(64, 64, (40, 128, 128))):
        tap.ask(got.append, camera=True)
        tap.offer(card, None, None)
        assert got[-1].camera is None
        assert np.array_equal(got[-1].output.y, card.y)


class Last:
    """Keeps the newest picture that left."""

    name = "last"

    def __init__(self) -> None:
        self.y: U8 | None = None

    def open(self, output: OutputFormat) -> None:
        pass

    def reformat(self, output: OutputFormat) -> None:
        pass

    def push(self, picture: I420, captured_ns: int) -> None:
        self.y = picture.y.copy()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["colour", "blur", "none"])
def test_what_is_tapped_is_bit_for_bit_what_viewers_got_also_while_the_model_fails(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_worker, "RETRY_S", 0.01)
    last, stop, moody = Last(), threading.Event(), threading.Event()
    engine = Engine(
        Config(
            source=SyntheticSettings(),
            background=BackgroundSettings(type=kind),  # type: ignore[arg-type]
            privacy=PrivacySettings(max_mask_age_ms=MAX_AGE_MS),
        ),
        outputs=DirectOutputs(last),  # type: ignore[arg-type]
        build_source=Room,
        build_model=lambda _: MoodyModel(random.Random(3), moody),
    )
    compared = {True: 0, False: 0}

    def compare(tapped: Tapped) -> None:  # on the frame loop's thread, right after the outputs got theirs
        if tapped.camera is not None or not np.array_equal(tapped.output.y, last.y):
            compared.clear()
            stop.set()
            return
        compared[tapped.mask is not None] += 1
        if min(compared.values()) >= 20:
            stop.set()
        engine.tap.ask(compare, camera=True)

    moody.set()
    engine.tap.ask(compare, camera=True)
    timer = threading.Timer(60, stop.set)
    timer.start()
    started = time.monotonic()
    engine.run(stop)
    timer.cancel()
    assert time.monotonic() - started < 60
    assert compared, "another picture than viewers got, or the room itself"
    assert min(compared.values()) >= 20
