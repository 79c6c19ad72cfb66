"""Each frame with its own mask, at its own time: a model that only finds what is bright tells whether it is so."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config
from edge_seg.conversion.converter import Converter
from edge_seg.conversion.recording import Recording
from edge_seg.errors import ConfigError, ModelError, SourceLost
from edge_seg.pyramid import Yuv444
from edge_seg.types import F32
from tests import clips

pytest.importorskip("gi")

FRAMES = 12
GREY, BRIGHT, BLACK = 60, 220, 16


def jumping(index: int) -> tuple[clips.U8, clips.U8, clips.U8]:
    """A bright block at another place in each frame: the mask of any other frame would miss it."""
    y, u, v = clips.numbered(320, 240, 0)
    y[:] = GREY
    left = 40 + 70 * (index * 2 % 3)
    y[60:200, left : left + 60] = BRIGHT
    return y, u, v


class BrightIsPerson:
    input_size = (160, 120)

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.calls = 0

    def infer(self, small: Yuv444) -> F32:
        self.calls += 1
        self.threads.add(threading.get_ident())
        return np.where(small.y > 140, 0.99, 0.01).astype(np.float32)


class Broken(BrightIsPerson):
    def infer(self, small: Yuv444) -> F32:
        if self.calls == 5:
            raise ModelError("out of order")
        return super().infer(small)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    path = clips.write_clip(tmp_path / "in.mp4", jumping, FRAMES)
    recording = Recording(path)
    recording.open()
    yield recording  # type: ignore[misc]
    recording.close()


BLACK_BEHIND = Config(background=BackgroundSettings(type="colour", colour="#000000"))


def test_each_frame_is_cut_out_by_the_mask_of_that_frame(recording: Recording) -> None:
    model = BrightIsPerson()
    converter = Converter(BLACK_BEHIND, recording, lambda _: model)
    times = []
    for index, one in enumerate(converter.pictures()):
        times.append(one.pts_ns)
        bright = jumping(index)[0] == BRIGHT
        assert np.mean(one.picture.y[bright] > 180) > 0.95, index
        assert np.mean(one.picture.y[~bright] < 40) > 0.95, index
    converter.close()
    assert model.calls == len(times) == FRAMES
    np.testing.assert_allclose(np.diff(times) / 1e6, 1000 / 30, atol=0.1)
    # Beside the rest, and never two at a time.
    assert len(model.threads) == 1
    assert threading.get_ident() not in model.threads


def test_a_model_that_fails_ends_it(recording: Recording) -> None:
    converter = Converter(BLACK_BEHIND, recording, lambda _: Broken())
    with pytest.raises(ModelError, match="out of order"):
        list(converter.pictures())
    converter.close()


def test_who_gives_up_gets_no_more(recording: Recording) -> None:
    converter = Converter(BLACK_BEHIND, recording, lambda _: BrightIsPerson())
    got = []
    for one in converter.pictures(lambda: len(got) >= 3):
        got.append(one.pts_ns)
    converter.close()
    assert len(got) == 3


def test_a_picture_too_small_for_anybody_is_refused(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "in.mkv", lambda i: clips.numbered(16, 14, i), 3, codec="ffv1")
    recording = Recording(path)
    recording.open()
    with pytest.raises(ConfigError, match="16x14 is too small"):
        Converter(BLACK_BEHIND, recording, lambda _: BrightIsPerson())
    recording.close()


def test_a_picture_that_changes_its_size_says_where(tmp_path: Path) -> None:
    small = clips.write_clip(tmp_path / "a.ts", lambda i: clips.numbered(320, 240, i), 30)
    large = clips.write_clip(tmp_path / "b.ts", lambda i: clips.numbered(640, 480, i), 30)
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    recording = Recording(path)
    recording.open()
    with pytest.raises(SourceLost, match="changes from 320x240 bt601 to 640x480 bt601"):
        list(recording.frames())
    recording.close()
