"""The model runs once per picture and model; again if either is another, or what was kept is damaged."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from edge_seg.evaluation import masks
from edge_seg.evaluation.clip import Clip
from edge_seg.pyramid import Yuv444
from edge_seg.types import F32, Matrix


@dataclass
class FakeSegmenter:
    """Gives the luma as the mask, and counts."""

    runtime_name: str = "runtime 1"
    delegates: tuple[str, ...] = ()
    calls: list[Yuv444] = field(default_factory=list)

    def infer(self, small: Yuv444) -> F32:
        self.calls.append(small)
        return small.y.astype(np.float32) / 255


def nothing() -> None:
    pass


def clip(seed: int = 0, frames: int = 3) -> Clip:
    rng = np.random.default_rng(seed)
    smalls = tuple(
        Yuv444(*rng.integers(0, 256, (3, 9, 16), np.uint8), matrix=Matrix.BT601) for _ in range(frames)
    )
    return Clip("clip", tuple("012"[:frames]), smalls, np.zeros((frames, 9, 16), np.float32))


def test_a_second_run_reads_what_the_first_kept(tmp_path):
    segmenter, ticks = FakeSegmenter(), []
    first = masks.model_masks(clip(), segmenter, "model", tmp_path, lambda: ticks.append(1))
    second = masks.model_masks(clip(), segmenter, "model", tmp_path, lambda: ticks.append(1))
    assert len(segmenter.calls) == 3
    assert len(ticks) == 6  # the progress bar moves either way
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, np.stack([s.y for s in clip().smalls]).astype(np.float32) / 255)


def test_nothing_is_kept_without_a_folder(tmp_path):
    segmenter = FakeSegmenter()
    for _ in range(2):
        masks.model_masks(clip(), segmenter, "model", None, nothing)
    assert len(segmenter.calls) == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["pictures", "one pixel", "matrix", "model", "runtime", "delegate"])
def test_another_model_or_other_pictures_are_run_anew(tmp_path, change):
    masks.model_masks(clip(), FakeSegmenter(), "model", tmp_path, nothing)
    other, segmenter, model = clip(), FakeSegmenter(), "model"
    if change == "pictures":
        other = clip(seed=1)
    elif change == "one pixel":
        other.smalls[2].v[8, 15] ^= 1
    elif change == "matrix":
        other = replace(other, smalls=tuple(s._replace(matrix=Matrix.BT709) for s in other.smalls))
    elif change == "model":
        model = "other model"
    elif change == "runtime":
        segmenter.runtime_name = "runtime 2"
    else:
        segmenter.delegates = ("tpu",)
    masks.model_masks(other, segmenter, model, tmp_path, nothing)
    assert len(segmenter.calls) == 3
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_replaced(tmp_path, damage):
    segmenter = FakeSegmenter()
    masks.model_masks(clip(), segmenter, "model", tmp_path, nothing)
    (kept,) = tmp_path.iterdir()
    if damage is None:
        kept.write_bytes(kept.read_bytes()[:-40])
    else:
        kept.write_bytes(damage)
    for _ in range(2):
        masks.model_masks(clip(), segmenter, "model", tmp_path, nothing)
    assert len(segmenter.calls) == 6  # three before the damage, three after, none for the last run


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    found = masks.model_masks(clip(), FakeSegmenter(), "model", tmp_path / "file", nothing)
    assert found.shape == (3, 9, 16)


def test_the_cache_is_where_the_desktop_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert masks.cache_folder() == Path("/elsewhere/edge-seg/masks")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative paths do not count")
    monkeypatch.setenv("HOME", "/home/someone")
    assert masks.cache_folder() == Path("/home/someone/.cache/edge-seg/masks")
