"""`model info` and `model verify`: the figures they print."""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.commands import model as model_command
from edge_seg.errors import ModelError
from edge_seg.model_card import resolve_model
from edge_seg.model_info import info
from edge_seg.model_verify import compare, verify
from tests.models_builder import TinyModel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for k, red in enumerate((20, 120, 220)):
        picture = np.full((24, 32, 3), (60, 60, red), np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), picture)
    return folder


def model(path: Path, bias: float = 0.0, dtype: str = "float32", card: str | None = "name: tiny\n") -> Path:
    scale = {"output_scale": (1 / 255, -128), "input_scale": (1 / 255, -128)} if dtype == "int8" else {}
    TinyModel(bias=(bias,), dtype=dtype, **scale).write(path)  # type: ignore[arg-type]
    if card is not None:
        path.with_suffix(".yaml").write_text(card)
    return path


def test_info_counts_what_the_model_consists_of(tmp_path: Path) -> None:
    result = info(model(tmp_path / "m.tflite"), threads=(1,))
    assert result.operators == {"CONV_2D": 1}
    assert result.macs == 8 * 6 * 3
    assert result.inputs == ("tensor 'picture' (1x6x8x3 float32), not quantised",)
    assert list(result.invoke_ms) == [1]
    assert "tiny" in result.as_text()


def test_info_needs_no_card(tmp_path: Path) -> None:
    result = info(model(tmp_path / "m.tflite", card=None), threads=(1,))
    assert result.card is None
    assert "none beside it" in result.as_text()


def test_info_of_the_shipped_model_shows_one_partition() -> None:
    result = info(resolve_model("selfie_landscape_int8", (1, 1)).file, threads=(1,))
    assert 30e6 < result.macs < 40e6
    if result.runtime.startswith("ai-edge-litert"):
        assert (result.partitions, result.left_to_runtime) == (1, 0)
    assert "scale 0.00390625, zero point -128" in result.outputs[0]


def test_a_model_agrees_with_itself(tmp_path: Path, images: Path) -> None:
    path = model(tmp_path / "m.tflite")
    agreement = verify(path, path, images)
    assert [row.name for row in agreement.rows] == ["0.png", "1.png", "2.png"]
    assert (agreement.mean.iou, agreement.mean.mad, agreement.mean.flipped) == (1.0, 0.0, 0.0)


def test_the_agreement_is_what_differs(tmp_path: Path, images: Path) -> None:
    """Red 120 and 220 of 255: 0.1 more makes a person of the middle picture only."""
    agreement = verify(model(tmp_path / "a.tflite"), model(tmp_path / "b.tflite", bias=0.1), images)
    assert [row.iou for row in agreement.rows] == [1.0, 0.0, 1.0]
    assert [row.flipped for row in agreement.rows] == [0.0, 1.0, 0.0]
    assert agreement.mean.mad == pytest.approx(0.1, abs=0.01)
    assert agreement.mean.iou == pytest.approx(2 / 3)


def test_a_float_model_without_a_card_borrows_that_of_the_other(tmp_path: Path, images: Path) -> None:
    ours = model(tmp_path / "a.tflite", dtype="int8", card="input: {dtype: int8}\noutput: {dtype: int8}\n")
    agreement = verify(ours, model(tmp_path / "b.tflite", card=None), images)
    assert agreement.mean.iou == 1.0
    assert agreement.mean.mad < 0.01


def test_masks_of_another_size_are_compared_at_the_first_ones_size() -> None:
    ours = np.zeros((4, 4), np.float32)
    ours[:2] = 1
    theirs = np.zeros((2, 2), np.float32)
    theirs[:1] = 1
    assert compare("x", ours, theirs).iou == 1.0


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    path = model(tmp_path / "m.tflite")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="no pictures"):
        verify(path, path, empty)
    with pytest.raises(ModelError, match="no such folder"):
        verify(path, path, tmp_path / "nowhere")


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    model_command.register(parser.add_subparsers())
    chosen = parser.parse_args(["model", *arguments])
    return int(chosen.handler(chosen))


def test_the_command_line_prints_text_or_json(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model(tmp_path / "m.tflite")
    assert run("info", str(path)) == 0
    assert "1 CONV_2D" in capsys.readouterr().out
    assert run("verify", str(path), "--against", str(path), "--images", str(images), "--json") == 0
    assert json.loads(capsys.readouterr().out)["mean"]["iou"] == 1.0
    with pytest.raises(ModelError, match=r"gone\.tflite"):
        run("info", str(tmp_path / "gone.tflite"))
