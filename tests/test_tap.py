import numpy as np

from edge_seg.tap import FrameTap, Tapped
from edge_seg.types import I420, Mask

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
