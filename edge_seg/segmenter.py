"""A small picture in, the probability of a person at each of its pixels out, for any model with a card."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_seg.colour import yuv_to_rgb_rows
from edge_seg.errors import ModelError
from edge_seg.model_card import InputCard, ModelCard, ModelSettings, OutputCard, read_model, resolve_model
from edge_seg.model_probe import probe
from edge_seg.pyramid import Yuv444, shrink
from edge_seg.runtime import Interpreter, TensorInfo
from edge_seg.types import F32, I420, U8, Matrix

log = logging.getLogger(__name__)


def open_segmenter(
    settings: ModelSettings, picture_size: tuple[int, int], base: Path | None = None
) -> Segmenter:
    """The segmenter that the configuration asks for, for pictures of `picture_size` (width, height).

    A model that was never seen before runs in a child process first.
    """
    card = resolve_model(settings.file, picture_size, settings.card, base)
    if settings.probe:
        settings = probe(card, settings, picture_size)
    return Segmenter(card, settings, picture_size)


def needs_another(
    settings: ModelSettings, before: tuple[int, int], after: tuple[int, int], base: Path | None = None
) -> bool:
    """Whether a segmenter for pictures of size `before` (width, height) is not the one for those of `after`.

    `auto` chooses by the aspect, and a letterboxed model has its bars by it.
    """
    card = resolve_model(settings.file, before, settings.card, base)
    if card != resolve_model(settings.file, after, settings.card, base):
        return True
    return card.input.letterbox and before[0] * after[1] != before[1] * after[0]


class Segmenter:
    """A mask model, ready to run. One thread owns it."""

    def __init__(self, card: ModelCard, settings: ModelSettings, picture_size: tuple[int, int]) -> None:
        content = read_model(card)
        try:
            self._interpreter = Interpreter(content, settings, _open_shape(card))
            if not self._interpreter.inputs:
                raise ModelError("the model has no input tensor")
            if card.output.index >= (count := len(self._interpreter.outputs)):
                raise ModelError(f"the card names output {card.output.index}, the model has {count}")
            self._encode = _Encoder(self._interpreter.inputs[0], card.input, picture_size)
            self._decode = _Decoder(self._interpreter.outputs[card.output.index], card.output, self._encode)
        except ModelError as error:
            raise ModelError(f"{card.file}: {error}") from error
        self._output = card.output.index
        self.card = card
        self.name = card.name
        self.input_size = self._encode.grid
        """(width, height) of the small pictures that it takes, and of the masks that it gives."""
        self.invoke_ns = 0
        """How long the last invocation of the interpreter took, without the conversions around it."""
        self.runtime_name = self._interpreter.runtime.name
        self.delegates = self._interpreter.delegates
        quantised = self._interpreter.inputs[0].dtype == "int8"
        if quantised and self._interpreter.runtime.slow_with_int8 and not self.delegates:
            log.warning("%s is ten times slower than ai-edge-litert with int8 models here", self.runtime_name)

    def infer(self, small: Yuv444) -> F32:
        """Probability of a person, shape (rows, cols) of `input_size`, float32 in [0, 1], in new memory.

        `small` is the whole picture at `input_size`.
        """
        view = self._interpreter.input_view(0)
        self._encode(small, view)
        del view
        started_ns = time.perf_counter_ns()
        self._interpreter.invoke()
        self.invoke_ns = time.perf_counter_ns() - started_ns
        return self._decode(self._interpreter.output_view(self._output))

    def segment(self, picture: I420) -> F32:
        """`infer` on a full picture."""
        return self.infer(shrink(picture, self.input_size))


def _open_shape(card: ModelCard) -> tuple[int, ...] | None:
    """The input shape to ask for, where the card gives one."""
    return None if card.input.size is None else (1, card.input.size[1], card.input.size[0], 3)


class _Encoder:
    """Writes a small picture into the input tensor."""

    def __init__(self, tensor: TensorInfo, card: InputCard, picture_size: tuple[int, int]) -> None:
        shape = tensor.shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or min(shape) < 1:
            raise ModelError(f"input {tensor}: expected 1 x height x width x 3")
        size = (shape[2], shape[1])
        if card.size is not None and size != card.size:
            raise ModelError(f"input {tensor}: the card says {card.size[0]}x{card.size[1]} (width x height)")
        if card.dtype is not None and tensor.dtype != card.dtype:
            raise ModelError(f"input {tensor}: the card says {card.dtype}")
        if tensor.dtype not in ("uint8", "int8", "int16", "float32"):
            raise ModelError(f"input {tensor}: expected uint8, int8, int16 or float32")
        if min(card.std) <= 0:
            raise ModelError(f"input {tensor}: the card's std must be above 0, got {card.std}")
        self.tensor_size = size
        self.grid = _fitted(size, picture_size) if card.letterbox else size
        self.left, self.top = (size[0] - self.grid[0]) // 2, (size[1] - self.grid[1]) // 2
        self._fill = np.array(card.fill if card.channels == "rgb" else card.fill[::-1], np.uint8)
        order = [0, 1, 2] if card.channels == "rgb" else [2, 1, 0]
        self._matrices = {matrix: np.ascontiguousarray(yuv_to_rgb_rows(matrix)[order]) for matrix in Matrix}
        self._table = _input_table(tensor, card)

    def __call__(self, small: Yuv444, tensor: NDArray[Any]) -> None:
        if (small.width, small.height) != self.grid:
            raise ValueError(f"expected a picture of {self.grid}, got {(small.width, small.height)}")
        rgb = cv2.transform(cv2.merge((small.y, small.u, small.v)), self._matrices[small.matrix])
        if self.grid != self.tensor_size:
            canvas = np.empty((self.tensor_size[1], self.tensor_size[0], 3), np.uint8)
            canvas[:] = self._fill
            canvas[self.top : self.top + self.grid[1], self.left : self.left + self.grid[0]] = rgb
            rgb = canvas
        if self._table is None:
            np.bitwise_xor(rgb, 0x80, out=tensor[0].view(np.uint8))
        else:
            for channel in range(3):
                tensor[0, :, :, channel] = self._table[channel][rgb[:, :, channel]]


def _input_table(tensor: TensorInfo, card: InputCard) -> NDArray[Any] | None:
    """The tensor's value for each channel and code value, shape (3, 256); None where it is code - 128."""
    values = (np.arange(256)[None, :] - np.array(card.mean)[:, None]) / np.array(card.std)[:, None]
    if tensor.dtype == "float32":
        return np.asarray(values, np.float32)
    limits = np.iinfo(tensor.dtype)
    stored = np.rint(values / (tensor.scale or 1.0)) + tensor.zero_point
    table = np.clip(stored, limits.min, limits.max).astype(tensor.dtype)
    signed_codes = tensor.dtype == "int8" and bool((table == np.arange(-128, 128)).all())
    return None if signed_codes else table


class _Decoder:
    """Reads the probability out of the output tensor."""

    def __init__(self, tensor: TensorInfo, card: OutputCard, encoder: _Encoder) -> None:
        shape = tensor.shape
        has_channels = len(shape) == 4
        if len(shape) not in (3, 4) or shape[0] != 1 or min(shape) < 1:
            raise ModelError(f"output {tensor}: expected 1 x height x width, with or without channels")
        channels = shape[3] if has_channels else 1
        if channels != card.channels:
            raise ModelError(f"output {tensor}: the card says {card.channels} channels")
        if card.dtype is not None and tensor.dtype != card.dtype:
            raise ModelError(f"output {tensor}: the card says {card.dtype}")
        whole = tensor.dtype in ("uint8", "int8", "int16", "int32", "int64")
        if card.meaning == "classes" and not (whole and channels == 1):
            raise ModelError(f"output {tensor}: the card says classes, which needs one channel of integers")
        if card.meaning != "classes" and card.person >= channels:
            raise ModelError(f"output {tensor}: the card says that channel {card.person} is the person")
        if card.meaning != "classes" and tensor.dtype not in ("uint8", "int8", "int16", "float32"):
            raise ModelError(f"output {tensor}: expected uint8, int8, int16 or float32 for {card.meaning}")
        self._size, self._channels = (shape[2], shape[1]), channels
        self._card, self._tensor, self._encoder = card, tensor, encoder
        self._table = (
            self._probability_table() if channels == 1 and tensor.dtype in ("int8", "uint8") else None
        )

    def __call__(self, tensor: NDArray[Any]) -> F32:
        raw = tensor.reshape(self._size[1], self._size[0], self._channels)
        if self._table is not None:
            # A new array by way of a table of 256: one pass, however the probability is defined.
            codes: U8 = raw[:, :, 0].view(np.uint8)
            probability = np.asarray(cv2.LUT(codes, self._table), np.float32)
        else:
            probability = self._meaning()(self._real(raw))
        return self._on_grid(probability)

    def _real(self, raw: NDArray[Any]) -> NDArray[Any]:
        if self._card.meaning == "classes" or self._tensor.scale == 0:
            return raw
        return (raw.astype(np.float32) - self._tensor.zero_point) * np.float32(self._tensor.scale)

    def _meaning(self) -> Callable[[NDArray[Any]], F32]:
        person = self._card.person

        def classes(values: NDArray[Any]) -> F32:
            return np.asarray(values[:, :, 0] == person, np.float32)

        def probability(values: NDArray[Any]) -> F32:
            # NaN is not a person: max(NaN, 0) is 0 for fmax.
            return np.asarray(np.fmin(np.fmax(values[:, :, person], 0), 1), np.float32)

        def logits(values: NDArray[Any]) -> F32:
            mine = values[:, :, person]
            if self._channels == 1:
                margin = mine
            else:
                # p = 1 / (1 + sum over the others of exp(other - mine)), in a form that cannot overflow
                others = np.delete(values, person, axis=2)
                top = others.max(axis=2)
                margin = mine - top - np.log(np.exp(others - top[:, :, None]).sum(axis=2))
            with np.errstate(over="ignore"):
                return np.asarray(np.nan_to_num(1 / (1 + np.exp(-margin)), nan=0.0), np.float32)

        return {"classes": classes, "probability": probability, "logits": logits}[self._card.meaning]

    def _probability_table(self) -> F32:
        codes = np.arange(256, dtype=np.uint8).view(self._tensor.dtype).reshape(1, 256, 1)
        return self._meaning()(self._real(codes)).reshape(256)

    def _on_grid(self, probability: F32) -> F32:
        """From the tensor's own size, with bars, to that of the small picture."""
        encoder = self._encoder
        if self._size != encoder.tensor_size:
            probability = np.asarray(
                cv2.resize(probability, encoder.tensor_size, interpolation=cv2.INTER_LINEAR), np.float32
            )
        if encoder.grid != encoder.tensor_size:
            rows = slice(encoder.top, encoder.top + encoder.grid[1])
            probability = probability[rows, encoder.left : encoder.left + encoder.grid[0]]
        return np.ascontiguousarray(probability)


def _fitted(size: tuple[int, int], picture_size: tuple[int, int]) -> tuple[int, int]:
    """The largest size within `size` that has the picture's aspect."""
    factor = min(size[0] / picture_size[0], size[1] / picture_size[1])
    return max(1, round(picture_size[0] * factor)), max(1, round(picture_size[1] * factor))
