"""Which model a setting names, and what is checked before its bytes are believed."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from edge_seg.errors import ModelError
from edge_seg.model_card import (
    ModelCard,
    ModelSettings,
    OutputCard,
    load_card,
    models_dir,
    read_model,
    resolve_model,
    shipped_models,
)
from tests.models_builder import TinyModel

WIDE, SQUARE = "selfie_landscape_int8", "selfie_general_int8"


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ((1280, 720), WIDE),
        ((640, 480), WIDE),
        ((480, 480), SQUARE),
        ((720, 1280), SQUARE),
        ((550, 480), SQUARE),
        ((2560, 720), WIDE),
    ],
)
def test_auto_picks_by_the_shape_of_the_picture(size: tuple[int, int], name: str) -> None:
    assert resolve_model("auto", size).name == name


@pytest.mark.parametrize("name", [WIDE, SQUARE])
def test_every_shipped_model_is_the_one_its_card_speaks_of(name: str) -> None:
    assert name in shipped_models()
    card = resolve_model(name, (1, 1))
    assert card.sha256
    assert read_model(card)
    assert card.licence.startswith("Apache-2.0")
    for text in (card.origin, card.intended, card.limits):
        assert text


def test_the_licence_and_the_notice_travel_with_the_models() -> None:
    assert "Apache License" in (models_dir() / "LICENSE").read_text()
    assert "MediaPipe" in (models_dir() / "NOTICE").read_text()


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=f"did you mean {WIDE}") as caught:
        resolve_model("selfie_landscap_int8", (1, 1))
    assert "\n" not in str(caught.value)


def test_a_path_takes_the_card_beside_it(tmp_path: Path) -> None:
    TinyModel().write(tmp_path / "mine.tflite")
    (tmp_path / "mine.yaml").write_text("name: mine\noutput: {meaning: logits, channels: 21, person: 15}\n")
    card = resolve_model("mine.tflite", (1, 1), base=tmp_path)
    assert card.name == "mine"
    assert card.file == tmp_path / "mine.tflite"
    assert card.output == OutputCard(meaning="logits", channels=21, person=15)


def test_a_card_in_the_configuration_replaces_the_one_beside_the_file(tmp_path: Path) -> None:
    path = TinyModel().write(tmp_path / "mine.tflite")
    settings = TypeAdapter(ModelSettings).validate_python(
        {"file": str(path), "card": {"output": {"meaning": "classes", "person": 15}}}
    )
    card = resolve_model(settings.file, (1, 1), settings.card)
    assert card.name == "mine"
    assert card.output.person == 15


def test_a_path_without_a_card_says_where_to_write_one(tmp_path: Path) -> None:
    path = TinyModel().write(tmp_path / "mine.tflite")
    with pytest.raises(ModelError, match=r"write mine\.yaml beside it, or model\.card"):
        resolve_model(str(path), (1, 1))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.tflite: no such model file"):
        resolve_model(str(tmp_path / "gone.tflite"), (1, 1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "no valid YAML"),
        ("colour: red", "colour: Unexpected keyword argument"),
        ("output: {meaning: maybe}", "output.meaning: Input should be 'probability', 'logits' or 'classes'"),
        ("input: {size: [256]}", "input.size"),
        ("sha256: abc", "sha256"),
        ("- 1", "card"),
    ],
)
def test_a_broken_card_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        load_card(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    card = resolve_model(WIDE, (1, 1))
    content = bytearray(card.file.read_bytes())
    content[-1] ^= 1
    path = tmp_path / "changed.tflite"
    path.write_bytes(content)
    changed = ModelCard(file=path, sha256=card.sha256)
    with pytest.raises(ModelError, match="damaged or exchanged"):
        read_model(changed)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"hello, I am no model at all", bytes(1000)])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a TensorFlow Lite model"):
        read_model(ModelCard(file=path))


@pytest.mark.parametrize("settings", [{"threads": 0}, {"threads": 17}, {"thread": 2}, {"runtime": "onnx"}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ModelSettings).validate_python(settings)
