"""A TensorFlow Lite model as objects that can be edited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

Op = schema.BuiltinOperator
_NAMES = {number: name for name, number in vars(Op).items() if isinstance(number, int)}


class Graph:
    """The first subgraph of a model, which for a mask model is all of it. Tensors go by their index."""

    def __init__(self, content: bytes) -> None:
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(content), 0))
        self.graph = self.model.subgraphs[0]

    @classmethod
    def load(cls, path: Path) -> Graph:
        return cls(path.read_bytes())

    def to_bytes(self) -> bytes:
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    @property
    def operators(self) -> list[Any]:
        return list(self.graph.operators)

    def replace_operators(self, operators: list[Any]) -> None:
        self.graph.operators = operators

    def kind(self, operator: Any) -> str:
        code = self.model.operatorCodes[operator.opcodeIndex]
        return _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def name(self, tensor: int) -> str:
        return str(self.graph.tensors[tensor].name.decode())

    def index(self, name: str) -> int:
        return next(k for k in range(len(self.graph.tensors)) if self.name(k) == name)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(side) for side in self.graph.tensors[tensor].shape)

    def producer(self, tensor: int) -> Any:
        return next((op for op in self.graph.operators if tensor in op.outputs), None)

    def consumers(self, tensor: int) -> list[Any]:
        return [op for op in self.graph.operators if tensor in op.inputs]

    def is_constant(self, tensor: int) -> bool:
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def constant(self, tensor: int, dtype: type = np.float32) -> np.ndarray:
        data = np.asarray(self.model.buffers[self.graph.tensors[tensor].buffer].data, np.uint8)
        return np.frombuffer(data.tobytes(), dtype).reshape(self.shape(tensor)).copy()

    def set_constant(self, tensor: int, values: np.ndarray) -> None:
        buffer = self.model.buffers[self.graph.tensors[tensor].buffer]
        buffer.data = np.frombuffer(values.astype(np.float32).tobytes(), np.uint8)

    def add_constant(self, name: str, values: np.ndarray) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        kind = schema.TensorType.INT32 if values.dtype == np.int32 else schema.TensorType.FLOAT32
        return self._add(name, values.shape, kind, len(self.model.buffers) - 1)

    def add_tensor(self, name: str, shape: tuple[int, ...]) -> int:
        return self._add(name, shape, schema.TensorType.FLOAT32, 0)

    def operator(
        self, kind: int, version: int, inputs: list[int], outputs: list[int], options: Any = None
    ) -> Any:
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        self.become(operator, kind, version, options)
        return operator

    def become(self, operator: Any, kind: int, version: int, options: Any) -> None:
        """Turn an operator into one of another kind; its tensors stay."""
        operator.opcodeIndex = self._code(kind, version)
        operator.customOptions = None
        operator.builtinOptions = options
        name = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, name, 0)

    def tidy(self) -> None:
        """Drop the tensors, buffers, operator codes and metadata that nothing uses; name input and output."""
        graph, model = self.graph, self.model
        used = {int(t) for op in graph.operators for t in (*op.inputs, *op.outputs)}
        used |= {int(t) for t in (*graph.inputs, *graph.outputs)}
        kept = [t for t in range(len(graph.tensors)) if t in used]
        place = {old: new for new, old in enumerate(kept)} | {-1: -1}
        graph.tensors = [graph.tensors[t] for t in kept]
        for owner in (graph, *graph.operators):
            owner.inputs = np.array([place[int(t)] for t in owner.inputs], np.int32)
            owner.outputs = np.array([place[int(t)] for t in owner.outputs], np.int32)
        buffers = [schema.BufferT()]
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is None or not len(data):
                tensor.buffer = 0
                continue
            buffer = schema.BufferT()
            buffer.data = data
            buffers.append(buffer)
            tensor.buffer = len(buffers) - 1
        model.buffers = buffers
        codes = sorted({op.opcodeIndex for op in graph.operators})
        model.operatorCodes = [model.operatorCodes[code] for code in codes]
        for op in graph.operators:
            op.opcodeIndex = codes.index(op.opcodeIndex)
        model.metadata = model.metadataBuffer = None
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_named("image", graph.inputs[0])]
        signature.outputs = [_named("mask", graph.outputs[0])]
        model.signatureDefs = [signature]

    def _add(self, name: str, shape: tuple[int, ...], kind: int, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), np.array(shape, np.int32), kind
        tensor.buffer, tensor.isVariable = buffer, False
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _code(self, kind: int, version: int) -> int:
        for k, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == kind:
                code.version = max(code.version, version)
                return k
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, min(kind, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


def _named(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(tensor)
    return entry
