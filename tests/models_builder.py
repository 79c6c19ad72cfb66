"""Writes tiny mask models, for tests: a 1x1 convolution of the picture, then what the test asks for.

The tables and slots are those of TensorFlow Lite's schema, version 3 (schema.fbs); only the `flatbuffers`
package is needed, so that it works beside either runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import flatbuffers
import numpy as np
from numpy.typing import NDArray

_TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}
_CONV_2D, _LOGISTIC, _SOFTMAX, _CUSTOM, _ARG_MAX = 3, 14, 25, 32, 56
_CONV_OPTIONS, _SOFTMAX_OPTIONS, _ARG_MAX_OPTIONS = 1, 9, 40


@dataclass
class TinyModel:
    """float32: out = weights @ pixel + bias. Quantised: the same on what the stored values stand for."""

    size: tuple[int, int] = (8, 6)
    """(width, height)."""
    weights: Sequence[Sequence[float]] = ((1.0, 0.0, 0.0),)
    """One row per output channel, one column per input channel (three, in a sound model)."""
    bias: Sequence[float] = (0.0,)
    dtype: str = "float32"
    input_scale: tuple[float, int] = (1 / 255, 0)
    """(scale, zero point) of a quantised input."""
    output_scale: tuple[float, int] = (1 / 255, 0)
    head: str = ""
    """"Nothing, logistic, softmax, argmax or custom."""
    version: int = 3
    output_shape: tuple[int, ...] | None = None
    """What the file claims, where that is not the truth."""
    index_type: str = "int64"
    """What argmax gives."""

    def write(self, path: Path) -> Path:
        path.write_bytes(self.to_bytes())
        return path

    def to_bytes(self) -> bytes:
        writer = _Writer()
        width, height = self.size
        channels = len(self.bias)
        grid = (1, height, width)
        quantised = self.dtype != "float32"
        weights = np.array(self.weights, np.float32).reshape(channels, 1, 1, -1)
        bias = np.array(self.bias, np.float32)
        source = writer.tensor("picture", (*grid, 3), self.dtype, self.input_scale if quantised else None)
        if quantised:
            weight_scale = max(float(np.abs(weights).max()), 1e-6) / 127
            zero = 128 if self.dtype == "uint8" else 0
            stored = np.rint(weights / weight_scale) + zero
            w = writer.constant("weights", stored.astype(self.dtype), (weight_scale, zero))
            bias_scale = weight_scale * self.input_scale[0]
            b = writer.constant("bias", np.rint(bias / bias_scale).astype(np.int32), (bias_scale, 0))
        else:
            w, b = writer.constant("weights", weights), writer.constant("bias", bias)
        shape = self.output_shape or (*grid, channels)
        out = writer.tensor("scores", shape, self.dtype, self.output_scale if quantised else None)
        writer.node(_CONV_2D, [source, w, b], [out], _CONV_OPTIONS, {0: ("b", 1), 1: ("i", 1), 2: ("i", 1)})
        if self.head in ("logistic", "softmax"):
            of_head = {"int8": (1 / 256, -128), "uint8": (1 / 256, 0)}.get(self.dtype)
            probability = writer.tensor("probability", (*grid, channels), self.dtype, of_head)
            if self.head == "softmax":
                writer.node(_SOFTMAX, [out], [probability], _SOFTMAX_OPTIONS, {0: ("f", 1.0)})
            else:
                writer.node(_LOGISTIC, [out], [probability])
            out = probability
        elif self.head == "argmax":
            axis = writer.constant("axis", np.array([3], np.int32))
            index = writer.tensor("class", grid, self.index_type, None)
            options = {0: ("b", _TYPES[self.index_type])}
            writer.node(_ARG_MAX, [out, axis], [index], _ARG_MAX_OPTIONS, options)
            out = index
        elif self.head == "custom":
            strange = writer.tensor("strange", shape, self.dtype, None)
            writer.node(_CUSTOM, [out], [strange], custom="NobodyHasThisOp")
            out = strange
        return writer.finish(source, out, self.version)


@dataclass
class _Writer:
    builder: flatbuffers.Builder = field(default_factory=lambda: flatbuffers.Builder(4096))
    tensors: list[int] = field(default_factory=list)
    buffers: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buffers.append(self._table({}))  # buffer 0 is the empty one, by convention

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        quantisation: tuple[float, int] | None = None,
        buffer: int = 0,
    ) -> int:
        b = self.builder
        fields = {
            0: ("o", self._numbers(np.array(shape, np.int32))),
            1: ("b", _TYPES[dtype]),
            2: ("I", buffer),
            3: ("o", b.CreateString(name)),
        }
        if quantisation is not None:
            scale, zero_point = quantisation
            scales = self._numbers(np.array([scale], np.float32))
            zeros = self._numbers(np.array([zero_point], np.int64))
            fields[4] = ("o", self._table({2: ("o", scales), 3: ("o", zeros)}))
        self.tensors.append(self._table(fields))
        return len(self.tensors) - 1

    def constant(
        self, name: str, values: NDArray[np.generic], quantisation: tuple[float, int] | None = None
    ) -> int:
        data = self.builder.CreateNumpyVector(np.frombuffer(values.tobytes(), np.uint8))
        self.buffers.append(self._table({0: ("o", data)}))
        return self.tensor(name, values.shape, str(values.dtype), quantisation, len(self.buffers) - 1)

    def node(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options_type: int = 0,
        options: dict[int, tuple[str, float]] | None = None,
        custom: str = "",
    ) -> None:
        code_fields: dict[int, tuple[str, float]] = {0: ("b", code), 2: ("i", 1), 3: ("i", code)}
        if custom:
            code_fields[1] = ("o", self.builder.CreateString(custom))
        self.codes.append(self._table(code_fields))
        fields: dict[int, tuple[str, float]] = {
            0: ("I", len(self.codes) - 1),
            1: ("o", self._numbers(np.array(inputs, np.int32))),
            2: ("o", self._numbers(np.array(outputs, np.int32))),
        }
        if options_type:
            fields[3] = ("B", options_type)
            fields[4] = ("o", self._table(options or {}))
        self.nodes.append(self._table(fields))

    def finish(self, source: int, out: int, version: int) -> bytes:
        b = self.builder
        graph = self._table(
            {
                0: ("o", self._tables(self.tensors)),
                1: ("o", self._numbers(np.array([source], np.int32))),
                2: ("o", self._numbers(np.array([out], np.int32))),
                3: ("o", self._tables(self.nodes)),
            }
        )
        model = self._table(
            {
                0: ("I", version),
                1: ("o", self._tables(self.codes)),
                2: ("o", self._tables([graph])),
                4: ("o", self._tables(self.buffers)),
            }
        )
        b.Finish(model, b"TFL3")
        return bytes(b.Output())

    def _numbers(self, values: NDArray[np.generic]) -> int:
        return int(self.builder.CreateNumpyVector(values))

    def _tables(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _table(self, fields: dict[int, tuple[str, float]]) -> int:
        b = self.builder
        b.StartObject(max(fields, default=-1) + 1)
        for slot, (kind, value) in fields.items():
            if kind == "o":
                b.PrependUOffsetTRelativeSlot(slot, value, 0)
            elif kind == "f":
                b.PrependFloat32Slot(slot, value, 0.0)
            else:
                prepend = {
                    "b": b.PrependInt8Slot,
                    "B": b.PrependUint8Slot,
                    "i": b.PrependInt32Slot,
                    "I": b.PrependUint32Slot,
                }[kind]
                prepend(slot, int(value), 0)
        return int(b.EndObject())
