"""Any mask model that a card describes: what goes into its tensor, and what comes out as a probability."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_seg.colour import rgb_to_yuv
from edge_seg.errors import ModelError
from edge_seg.model_card import InputCard, ModelCard, ModelSettings, OutputCard, resolve_model
from edge_seg.segmenter import Segmenter, needs_another, open_segmenter
from edge_seg.types import I420, Matrix
from tests.models_builder import TinyModel

ONE_THREAD = ModelSettings(threads=1)
RED = (200, 60, 20)
TWO = {"weights": ((1, 0, 0), (0, 1, 0)), "bias": (0.0, 0.0)}


def flat(rgb: tuple[int, int, int], size: tuple[int, int] = (32, 24), matrix: Matrix = Matrix.BT709) -> I420:
    y, u, v = np.rint(rgb_to_yuv(np.array(rgb, np.float32), matrix)).astype(int)
    return I420.filled(*size, (y, u, v), matrix)


def mask_of(
    path: Path,
    model: TinyModel,
    picture: I420,
    given: InputCard | None = None,
    output: OutputCard | None = None,
) -> np.ndarray:
    card = ModelCard(
        file=model.write(path / "tiny.tflite"), input=given or InputCard(), output=output or OutputCard()
    )
    return Segmenter(card, ONE_THREAD, (picture.width, picture.height)).segment(picture)


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("matrix", list(Matrix))
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_input_is_the_colour_of_the_picture(tmp_path: Path, channel: int, matrix: Matrix) -> None:
    weights = (tuple(1.0 if k == channel else 0.0 for k in range(3)),)
    mask = mask_of(tmp_path, TinyModel(weights=weights), flat(RED, matrix=matrix))
    assert mask.shape == (6, 8)
    assert mask.dtype == np.float32
    assert np.abs(mask * 255 - RED[channel]).max() < 2.5


def test_bgr_models_get_bgr(tmp_path: Path) -> None:
    mask = mask_of(tmp_path, TinyModel(), flat(RED), InputCard(channels="bgr"))
    assert np.abs(mask * 255 - RED[2]).max() < 2.5


def test_mean_and_deviation_are_per_channel(tmp_path: Path) -> None:
    card = InputCard(mean=(100, 0, 0), std=(200, 1, 1))
    mask = mask_of(tmp_path, TinyModel(), flat(RED), card)
    assert np.abs(mask - (200 - 100) / 200).max() < 0.015


@pytest.mark.parametrize(
    ("dtype", "input_scale", "output_scale"),
    [
        ("uint8", (1 / 255, 0), (1 / 255, 0)),
        ("int8", (1 / 255, -128), (1 / 255, -128)),
        ("int8", (0.0123, -17), (0.005, -100)),
        ("uint8", (1 / 127.5, 100), (1 / 200, 30)),
    ],
)
def test_any_scale_and_zero_point_means_the_same(
    tmp_path: Path, dtype: str, input_scale: tuple[float, int], output_scale: tuple[float, int]
) -> None:
    model = TinyModel(dtype=dtype, input_scale=input_scale, output_scale=output_scale)
    mask = mask_of(tmp_path, model, flat(RED))
    assert np.abs(mask - RED[0] / 255).max() < 0.02


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_one_channel_logits_go_through_the_sigmoid(tmp_path: Path, dtype: str) -> None:
    model = TinyModel(
        weights=((8, 0, 0),), bias=(-4.0,), dtype=dtype, input_scale=(1 / 127, 0), output_scale=(0.05, 0)
    )
    mask = mask_of(tmp_path, model, flat(RED), output=OutputCard(meaning="logits"))
    assert np.abs(mask - sigmoid(8 * 200 / 255 - 4)).max() < 0.03


@pytest.mark.parametrize("person", [0, 1])
def test_a_softmax_model_gives_the_channel_of_the_person(tmp_path: Path, person: int) -> None:
    model = TinyModel(**TWO, head="softmax")
    mask = mask_of(tmp_path, model, flat(RED), output=OutputCard(channels=2, person=person))
    sure = sigmoid((200 - 60) / 255)
    assert np.abs(mask - (sure if person == 0 else 1 - sure)).max() < 0.01


def test_logits_of_many_classes_become_the_softmax_of_the_person(tmp_path: Path) -> None:
    weights = [(0.0, 0.0, 0.0)] * 21
    weights[15] = (4.0, 0.0, 0.0)
    model = TinyModel(weights=weights, bias=[0.0] * 21)
    mask = mask_of(tmp_path, model, flat(RED), output=OutputCard(meaning="logits", channels=21, person=15))
    top = np.exp(4 * 200 / 255)
    assert np.abs(mask - top / (top + 20)).max() < 0.01


def test_huge_logits_do_not_overflow(tmp_path: Path) -> None:
    model = TinyModel(weights=((1e30, 0, 0), (0, 1e30, 0)), bias=(0.0, 0.0))
    output = OutputCard(meaning="logits", channels=2, person=0)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        mask = mask_of(tmp_path, model, flat(RED), output=output)
    assert (mask == 1).all()


def test_not_a_number_is_not_a_person(tmp_path: Path) -> None:
    for meaning in ("probability", "logits"):
        model = TinyModel(bias=(float("nan"),))
        mask = mask_of(tmp_path, model, flat(RED), output=OutputCard(meaning=meaning))
        assert (mask == 0).all()


@pytest.mark.parametrize("index_type", ["int32", "int64"])
def test_class_indices_become_zero_and_one(tmp_path: Path, index_type: str) -> None:
    model = TinyModel(**TWO, head="argmax", index_type=index_type)
    for person in (0, 1):
        output = OutputCard(meaning="classes", person=person)
        mask = mask_of(tmp_path, model, flat(RED), output=output)
        assert (mask == (1 if person == 0 else 0)).all()


@pytest.mark.parametrize("size", [(64, 16), (16, 64), (48, 48)])
def test_a_letterboxed_mask_covers_the_picture_and_nothing_else(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    model = TinyModel(size=(32, 32))
    card = InputCard(letterbox=True, fill=(255, 255, 255))
    picture = flat((0, 0, 0), size)
    mask = mask_of(tmp_path, model, picture, card)
    assert mask.shape[1] / mask.shape[0] == size[0] / size[1]
    assert max(mask.shape) == 32
    assert mask.max() < 0.01, "the white bars belong to no part of the picture"


def test_letterbox_keeps_the_picture_in_place(tmp_path: Path) -> None:
    picture = I420.filled(64, 32, (16, 128, 128))
    picture.y[:16] = 235
    mask = mask_of(tmp_path, TinyModel(size=(32, 32)), picture, InputCard(letterbox=True))
    assert mask.shape == (16, 32)
    assert (mask[:8] > 0.95).all()
    assert (mask[8:] < 0.05).all()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(1, 300), height=st.integers(1, 300), letterbox=st.booleans())
def test_the_mask_has_the_advertised_size(tmp_path: Path, width: int, height: int, letterbox: bool) -> None:
    card = ModelCard(
        file=TinyModel(size=(16, 9)).write(tmp_path / "m.tflite"), input=InputCard(letterbox=letterbox)
    )
    segmenter = Segmenter(card, ONE_THREAD, (width, height))
    mask = segmenter.segment(I420.filled(width, height, (100, 128, 128)))
    assert (mask.shape[1], mask.shape[0]) == segmenter.input_size
    assert mask.flags.c_contiguous
    assert 0 <= mask.min() <= mask.max() <= 1


def test_each_mask_is_in_memory_of_its_own(tmp_path: Path) -> None:
    card = ModelCard(file=TinyModel().write(tmp_path / "m.tflite"))
    segmenter = Segmenter(card, ONE_THREAD, (32, 24))
    first = segmenter.segment(flat(RED))
    kept = first.copy()
    segmenter.segment(flat((0, 0, 0)))
    assert (first == kept).all()


@pytest.mark.parametrize(
    ("model", "card", "said"),
    [
        (TinyModel(), {"input": InputCard(dtype="int8")}, "'picture' (1x6x8x3 float32): the card says int8"),
        (
            TinyModel(),
            {"output": OutputCard(channels=2)},
            "'scores' (1x6x8x1 float32): the card says 2 channels",
        ),
        (
            TinyModel(),
            {"output": OutputCard(dtype="uint8")},
            "'scores' (1x6x8x1 float32): the card says uint8",
        ),
        (TinyModel(), {"output": OutputCard(person=3)}, "the card says that channel 3 is the person"),
        (
            TinyModel(),
            {"output": OutputCard(meaning="classes")},
            "the card says classes, which needs one channel",
        ),
        (TinyModel(), {"output": OutputCard(index=4)}, "the card names output 4, the model has 1"),
        (TinyModel(), {"input": InputCard(std=(1, 0, 1))}, "std must be above 0"),
        (TinyModel(size=(2048, 16384)), {}, "'picture' (1x16384x2048x3 float32): too large"),
        (
            TinyModel(**TWO, head="argmax"),
            {"output": OutputCard()},
            "'class' (1x6x8 int64): expected uint8, int8, int16 or float32 for probability",
        ),
    ],
)
def test_a_model_that_does_not_fit_its_card_is_refused(
    tmp_path: Path, model: TinyModel, card: dict[str, object], said: str
) -> None:
    path = model.write(tmp_path / "tiny.tflite")
    with pytest.raises(ModelError) as caught:
        Segmenter(replace(ModelCard(file=path), **card), ONE_THREAD, (32, 24))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_card_may_choose_the_size_of_a_model_that_leaves_it_open(tmp_path: Path) -> None:
    card = ModelCard(file=TinyModel(size=(8, 6)).write(tmp_path / "m.tflite"), input=InputCard(size=(20, 10)))
    segmenter = Segmenter(card, ONE_THREAD, (32, 24))
    assert segmenter.input_size == (20, 10)
    assert segmenter.segment(flat(RED)).shape == (10, 20)


@pytest.mark.parametrize("size", [(320, 180), (180, 320)])
def test_the_shipped_models_see_nobody_in_an_empty_picture(size: tuple[int, int]) -> None:
    segmenter = open_segmenter(ModelSettings(probe=False), size)
    mask = segmenter.segment(flat((120, 120, 120), size))
    assert mask.max() < 0.5
    assert segmenter.card == resolve_model("auto", size)


def test_another_shape_needs_another_model_only_where_the_shape_matters(tmp_path: Path) -> None:
    wide, wider, upright = (640, 360), (640, 270), (360, 640)
    assert needs_another(ModelSettings(), wide, upright)
    assert not needs_another(ModelSettings(), wide, wider)
    assert not needs_another(ModelSettings(file="selfie_landscape_int8"), wide, upright)
    path = str(TinyModel().write(tmp_path / "m.tflite"))
    bars = ModelSettings(file=path, card=ModelCard(input=InputCard(letterbox=True)))
    assert needs_another(bars, wide, wider)
    assert not needs_another(bars, wide, (1280, 720))
