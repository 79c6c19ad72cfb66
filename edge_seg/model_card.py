"""What a mask model means: its card, where the shipped ones are, and which one a setting names.

A `.tflite` file says the shapes and types of its tensors, but not what they mean. The card says that:
how a picture becomes the input, which output channel or class is the person, and what the model is good for.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import annotated_types as at
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from edge_seg.errors import ModelError

WIDE_ASPECT = 1.2
"""From this width over height on, `auto` takes the wide model: 5:4 and wider are wide, 1:1 is not."""

MAX_MODEL_BYTES = 512 << 20
"""More than any board of this kind can run; a larger file is a mistake, not a model."""

Side = Annotated[int, at.Interval(ge=8, le=4096)]
Code = Annotated[int, at.Interval(ge=0, le=255)]
Triple = tuple[float, float, float]
DType = Literal["uint8", "int8", "int16", "float32"]


@dataclass(frozen=True)
class InputCard:
    """How a picture becomes the input tensor, [1, height, width, 3].

    The tensor holds (code - mean) / std, where code is 0 to 255; a quantised tensor holds that divided by its
    own scale, plus its own zero point.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    size: tuple[Side, Side] | None = None
    """(width, height). Needed where the model leaves them open; otherwise checked against the model."""
    dtype: DType | None = None
    """Checked against the model where given."""
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: Triple = (0.0, 0.0, 0.0)
    """Per channel, in the tensor's order of channels."""
    std: Triple = (255.0, 255.0, 255.0)
    letterbox: bool = False
    """Keep the picture's aspect and fill the rest, instead of stretching the picture over the input."""
    fill: tuple[Code, Code, Code] = (0, 0, 0)
    """RGB of the bars beside a letterboxed picture."""


@dataclass(frozen=True)
class OutputCard:
    """What the output tensor, [1, height, width, channels] or [1, height, width], means."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    meaning: Literal["probability", "logits", "classes"] = "probability"
    """`probability`: already in [0, 1]; `logits`: before the sigmoid (one channel) or softmax (several);
    `classes`: the index of the most likely class at each pixel."""
    person: Annotated[int, at.Ge(0)] = 0
    """The channel of the person, or the person's index among the classes (15 for DeepLab on Pascal VOC)."""
    channels: Annotated[int, at.Ge(1)] = 1
    index: Annotated[int, at.Ge(0)] = 0
    """Which output of the model it is, counted from 0, where there are several."""
    dtype: Literal["uint8", "int8", "int16", "int32", "int64", "float32"] | None = None
    """Checked against the model where given."""


@dataclass(frozen=True)
class ModelCard:
    """A mask model: its file, what its tensors mean, and what is known about it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = "unnamed"
    file: Path = Path()
    """The .tflite file; in a card file, relative to the card."""
    sha256: Annotated[str, at.Predicate(lambda text: text == "" or _is_sha256(text))] = ""
    """Hex digest of the file, checked when it is loaded. Empty: not checked."""
    input: InputCard = field(default_factory=InputCard)
    output: OutputCard = field(default_factory=OutputCard)
    intended: str = ""
    limits: str = ""
    measured: tuple[str, ...] = ()
    origin: str = ""
    licence: str = ""


@dataclass(frozen=True)
class DelegateSettings:
    """An external delegate of the runtime: a shared object that takes over part of the model."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    path: str
    """A path, or a name that the dynamic linker finds, such as libedgetpu.so.1."""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSettings:
    """The `model` section of the configuration."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    file: str = "auto"
    """`auto` (by the picture's shape), the name of a shipped model, or a path to a .tflite file."""
    card: ModelCard | None = None
    """The card of a foreign model, where no NAME.yaml lies beside its file."""
    threads: Annotated[int, at.Interval(ge=1, le=16)] = 2
    runtime: Literal["auto", "litert", "tflite"] = "auto"
    """`litert` is ai-edge-litert, `tflite` is tflite-runtime, `auto` is the first one installed."""
    delegates: tuple[DelegateSettings, ...] = ()
    on_delegate_failure: Literal["cpu", "refuse"] = "cpu"
    probe: bool = True
    """Load and run a model that was never seen before in a child process first, so that a file that crashes
    the runtime does not take the daemon down."""


_CARD: TypeAdapter[ModelCard] = TypeAdapter(ModelCard)


def models_dir() -> Path:
    """The folder of the shipped models: inside an installed package, at the root of a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "models", package.parent / "models"):
        if any(folder.glob("*.tflite")):
            return folder
    raise ModelError(f"no shipped models in {package / 'models'} or {package.parent / 'models'}: reinstall")


def shipped_models() -> tuple[str, ...]:
    """The names that `model.file` may take beside `auto` and paths."""
    return tuple(sorted(path.stem for path in models_dir().glob("*.tflite")))


def load_card(path: Path) -> ModelCard:
    """The card in a YAML file; its `file` becomes absolute."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: model card cannot be read: {error}") from error
    try:
        card = _CARD.validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ModelError(f"{path}: model card is no valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ModelError(f"{path}: model card: {_first_problem(error.errors()[0])}") from error
    file = card.file if card.file != Path() else Path(path.stem + ".tflite")
    return replace(card, file=(path.parent / file).resolve())


def resolve_model(
    setting: str, picture_size: tuple[int, int], card: ModelCard | None = None, base: Path | None = None
) -> ModelCard:
    """The card of the model that `setting` names, for pictures of `picture_size` (width, height).

    A path is relative to `base` (the folder of the configuration), a `card` given here replaces NAME.yaml.
    """
    if setting == "auto":
        width, height = picture_size
        wide = width >= WIDE_ASPECT * height
        setting = "selfie_landscape_int8" if wide else "selfie_general_int8"
    if "/" not in setting and not setting.endswith(".tflite"):
        names = shipped_models()
        if setting not in names:
            near = difflib.get_close_matches(setting, ["auto", *names], n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ModelError(f"model {setting!r}: not auto, {', '.join(names)} or a path to a .tflite{hint}")
        return load_card(models_dir() / f"{setting}.yaml")
    path = (base or Path()).joinpath(Path(setting).expanduser()).resolve()
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    if card is not None:
        return replace(card, file=path, name=card.name if card.name != "unnamed" else path.stem)
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        raise ModelError(
            f"{path}: no card: write {beside.name} beside it, or model.card in the configuration"
        )
    return replace(load_card(beside), file=path)


def read_model(card: ModelCard) -> bytes:
    """The bytes of the card's model, after a check that they are what the card speaks of."""
    try:
        size = card.file.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise ModelError(
                f"{card.file}: {size >> 20} MiB is no mask model (at most {MAX_MODEL_BYTES >> 20})"
            )
        content = card.file.read_bytes()
    except OSError as error:
        raise ModelError(f"{card.file}: model cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(content).hexdigest()
    if card.sha256 and digest != card.sha256.lower():
        raise ModelError(
            f"{card.file}: sha256 is {digest[:12]}…, its card says {card.sha256[:12]}…: damaged or exchanged"
        )
    # The identifier of a flatbuffer stands at byte 4; without it nothing else in the file can be trusted.
    if content[4:8] != b"TFL3":
        raise ModelError(f"{card.file}: not a TensorFlow Lite model ({size} bytes, no TFL3 identifier)")
    return content


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text)


def _first_problem(error: Mapping[str, Any] | Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "card"
    return f"{where}: {error['msg']}, got {error['input']!r:.60}"
