"""Sequences from folders and from drawing: what is read, what is left out, what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.errors import ConfigError
from edge_seg.evaluation import sequences, synthetic_set
from edge_seg.evaluation.clip import resample
from edge_seg.sources.base import SyntheticSettings
from edge_seg.types import Matrix

SIZES = [(64, 48), (65, 49)]


def write_images(folder: Path, labels: list[str], width: int = 64, height: int = 48) -> None:
    for kind in ("rgb", "mask"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index, label in enumerate(labels):
        picture = np.full((height, width, 3), (40, 90, 200), np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 2] = 1 + index  # DAVIS numbers its objects from 1
        cv2.imwrite(str(folder / "rgb" / f"{label}.jpg"), picture)
        cv2.imwrite(str(folder / "mask" / f"{label}.png"), mask)


def write_video(path: Path, frames: list[np.ndarray], codec: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    colour = frames[0].ndim == 3
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 30, (width, height), colour)
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()


def write_clip(folder: Path, pictures: int, masks: int) -> None:
    write_video(
        folder / "rgb.mp4", [np.full((48, 64, 3), 30 + 5 * i, np.uint8) for i in range(pictures)], "mp4v"
    )
    truths = []
    for index in range(masks):
        truth = np.zeros((48, 64), np.uint8)
        truth[:, : 10 + index] = 255
        truths.append(truth)
    write_video(folder / "alpha.mkv", truths, "FFV1")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_images_any_value_but_zero_is_the_person(tmp_path, width, height):
    write_images(tmp_path / "walk", ["00000", "00007"], width, height)
    (found,) = sequences.find(tmp_path)
    samples = list(found.samples())
    assert (found.name, found.count, found.left_out) == ("walk", 2, "")
    assert [s.label for s in samples] == ["00000", "00007"]
    for sample in samples:
        assert (sample.picture.width, sample.picture.height) == (width, height)
        assert sample.picture.matrix is Matrix.BT601
        assert set(np.unique(sample.truth)) == {0, 255}
        np.testing.assert_array_equal(sample.truth[:, : width // 2], 255)
        np.testing.assert_array_equal(sample.truth[:, width // 2 :], 0)


def test_jpeg_pictures_become_limited_range_bt601(tmp_path):
    write_images(tmp_path / "walk", ["00000"])
    (sample,) = sequences.find(tmp_path)[0].samples()
    # R, G, B = 200, 90, 40 by BT.601: Y' = 117.2, Cb = 84.4, Cr = 187.1. Limited range:
    # 16 + Y' * 219 / 255 = 116.7, 128 + (Cb - 128) * 224 / 255 = 89.7, 128 + (Cr - 128) * 224 / 255 = 179.9
    for plane, expected in zip(sample.picture.planes, (116.7, 89.7, 179.9), strict=True):
        assert abs(plane.astype(float).mean() - expected) < 1.5


def test_a_jpeg_mask_begins_at_half_the_range(tmp_path):
    write_images(tmp_path / "walk", ["00000"])
    (tmp_path / "walk" / "mask" / "00000.png").unlink()
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:30] = 255
    cv2.imwrite(str(tmp_path / "walk" / "mask" / "00000.jpg"), cv2.GaussianBlur(mask, (3, 3), 0))
    (sample,) = sequences.find(tmp_path)[0].samples()
    assert np.abs((sample.truth >= 128).sum() - 400) <= 8  # and not also the ringing around it


def test_video_keeps_code_values_and_soft_masks(tmp_path):
    write_clip(tmp_path / "clip", pictures=3, masks=3)
    (found,) = sequences.find(tmp_path)
    samples = list(found.samples())
    assert found.count == len(samples) == 3
    for index, sample in enumerate(samples):
        # Gray v is 16 + v * 219 / 255 in limited range.
        assert abs(sample.picture.y.astype(float).mean() - (16 + (30 + 5 * index) * 219 / 255)) < 2.5
        assert np.abs(sample.picture.u.astype(int) - 128).max() <= 1
        np.testing.assert_array_equal(sample.truth[:, : 10 + index], 255)
        np.testing.assert_array_equal(sample.truth[:, 10 + index :], 0)


@pytest.mark.parametrize(("pictures", "masks", "shorter"), [(5, 3, "alpha.mkv"), (3, 5, "rgb.mp4")])
def test_of_unequal_videos_the_common_frames_count(tmp_path, pictures, masks, shorter):
    write_clip(tmp_path / "clip", pictures, masks)
    (found,) = sequences.find(tmp_path)
    assert len(list(found.samples())) == 3
    assert found.left_out.startswith(f"{shorter} ends after 3 frames")


def test_images_without_a_partner_are_left_out(tmp_path):
    write_images(tmp_path / "walk", ["00000", "00001", "00002"])
    (tmp_path / "walk" / "mask" / "00001.png").unlink()
    (found,) = sequences.find(tmp_path)
    assert [s.label for s in found.samples()] == ["00000", "00002"]
    assert found.left_out.startswith("1 ")


def test_a_folder_can_be_one_sequence(tmp_path):
    write_images(tmp_path / "walk", ["00000"])
    (found,) = sequences.find(tmp_path / "walk")
    assert found.name == "walk"


def test_patterns_choose_by_name(tmp_path):
    for name in ("a_walk", "a_run", "b_walk"):
        write_images(tmp_path / name, ["00000"])
    assert [s.name for s in sequences.find(tmp_path)] == ["a_run", "a_walk", "b_walk"]
    assert [s.name for s in sequences.find(tmp_path, ("a_*",))] == ["a_run", "a_walk"]
    with pytest.raises(ConfigError, match="called c, only a_run, a_walk, b_walk"):
        sequences.find(tmp_path, ("c",))


def test_what_cannot_be_a_sequence_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: no such folder"):
        sequences.find(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no sequences in it"):
        sequences.find(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="not a folder"):
        sequences.find(tmp_path / "file")
    half = tmp_path / "half"
    write_images(half, ["00000"])
    (half / "mask" / "00000.png").unlink()
    with pytest.raises(ConfigError, match="no picture and mask of the same name"):
        sequences.find(tmp_path)
    (half / "mask").rmdir()
    with pytest.raises(ConfigError, match="rgb without mask"):
        sequences.find(tmp_path)


def test_a_broken_video_is_named(tmp_path):
    write_clip(tmp_path / "clip", 2, 2)
    (tmp_path / "clip" / "rgb.mp4").write_bytes(b"no video")
    (found,) = sequences.find(tmp_path)
    with pytest.raises(ConfigError, match=r"rgb\.mp4: cannot be decoded"):
        list(found.samples())


def test_a_broken_picture_is_named(tmp_path):
    write_images(tmp_path / "walk", ["00000", "00001"])
    (tmp_path / "walk" / "rgb" / "00001.jpg").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"00001\.jpg: cannot be read"):
        list(sequences.find(tmp_path)[0].samples())


def test_truth_is_resampled_by_area():
    truth = np.zeros((4, 8), np.uint8)
    truth[:, :3] = 255  # one and a half elements of a grid of four
    np.testing.assert_allclose(resample(truth, (4, 2)), [[1, 0.5, 0, 0]] * 2)


def test_the_drawn_set_has_exact_masks_and_survives_being_written(tmp_path):
    settings = SyntheticSettings(width=179, height=181, motion="wave", noise=0.0)
    drawn = synthetic_set.SyntheticSequence("wave", settings, count=2)
    synthetic_set.write(drawn, tmp_path)
    (read,) = sequences.find(tmp_path)
    for one, other in zip(drawn.samples(), read.samples(), strict=True):
        assert one.label == other.label
        assert 0.05 < (one.truth > 0).mean() < 0.8
        np.testing.assert_array_equal(one.truth, other.truth)
        # Written in RGB, read as BT.601: luma moves a little with the matrix, and nothing more.
        assert abs(one.picture.y.astype(float).mean() - other.picture.y.astype(float).mean()) < 4


def test_the_drawn_set_covers_motions_noise_cuts_and_both_models():
    chosen = synthetic_set.SETTINGS.values()
    assert {s.motion for s in chosen} == {"still", "sway", "walk", "enter_leave", "wave", "pan"}
    assert any(s.cut_every for s in chosen)
    assert len({s.noise for s in chosen}) > 1
    assert {s.width > 1.2 * s.height for s in chosen} == {True, False}
