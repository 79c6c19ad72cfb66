"""To int8 with given ranges of the activations, by ai-edge-quantizer; and runs of a model for the search."""

from __future__ import annotations

import contextlib
import io
import logging

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from graph import Graph

Ranges = dict[str, tuple[float, float]]
"""By the tensor's name: the smallest and largest value that it can hold."""

LOGIT = 8.0
"""sigmoid(8) = 0.9997: beyond that, a logit says nothing that 8 bits of probability can tell."""


def quantize(content: bytes, ranges: Ranges) -> bytes:
    """The float model `content`, its weights per channel and its activations by `ranges`, in int8."""
    from ai_edge_quantizer import quantizer, recipe  # seconds to import, and in the recipe's venv only

    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        job = quantizer.Quantizer(content, recipe.static_wi8_ai8())
        statistics = {
            name: {
                "min": np.full((1, 1, 1, 1), low, np.float32),
                "max": np.full((1, 1, 1, 1), high, np.float32),
            }
            for name, (low, high) in ranges.items()
        }
        result = bytes(job.quantize(statistics).quantized_model)
    logging.disable(logging.NOTSET)
    return _move_in_int8(result)


def _move_in_int8(content: bytes) -> bytes:
    """The quantiser does not know DEPTH_TO_SPACE and leaves it in float, between two conversions."""
    graph = Graph(content)
    needless = []
    for op in graph.operators:
        if graph.kind(op) != "DEPTH_TO_SPACE":
            continue
        before, (after,) = graph.producer(int(op.inputs[0])), graph.consumers(int(op.outputs[0]))
        if (graph.kind(before), graph.kind(after)) != ("DEQUANTIZE", "QUANTIZE"):
            raise ValueError("expected DEPTH_TO_SPACE between DEQUANTIZE and QUANTIZE")
        op.inputs, op.outputs = before.inputs, after.outputs
        tensors = graph.graph.tensors
        tensors[int(op.outputs[0])].quantization = tensors[int(op.inputs[0])].quantization
        tensors[int(op.outputs[0])].name = b"mask"
        needless += [before, after]
    graph.replace_operators([op for op in graph.operators if not any(op is gone for gone in needless)])
    graph.tidy()
    return graph.to_bytes()


def run(content: bytes, pictures: np.ndarray) -> np.ndarray:
    """Probabilities, shape (n, rows, cols), of pictures, shape (n, rows, cols, 3), uint8 RGB."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    masks = []
    for picture in pictures:
        if source["dtype"] == np.int8:
            interpreter.set_tensor(source["index"], (picture ^ 0x80).view(np.int8)[None])
        else:
            interpreter.set_tensor(source["index"], picture[None].astype(np.float32) / 255)
        interpreter.invoke()
        mask = interpreter.get_tensor(out["index"])[0, :, :, 0]
        masks.append((mask.view(np.uint8) ^ 0x80) / np.float32(256) if mask.dtype == np.int8 else mask)
    return np.array(masks, np.float32)


def observe(graph: Graph, pictures: np.ndarray) -> tuple[Ranges, dict[int, np.ndarray]]:
    """The range of every activation over the pictures, and its loudness per channel (see equalize.py)."""
    interpreter = Interpreter(
        model_content=graph.to_bytes(),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    source = graph.graph.inputs[0]
    tensors = [int(source), *(int(op.outputs[0]) for op in graph.operators)]
    gate_of = {int(op.inputs[0]): op for op in graph.operators if _is_gate(op)}
    low = dict.fromkeys(tensors, np.inf)
    high = dict.fromkeys(tensors, -np.inf)
    loud: dict[int, list[np.ndarray]] = {t: [] for t in tensors}
    for picture in pictures:
        interpreter.set_tensor(int(source), picture[None].astype(np.float32) / 255)
        interpreter.invoke()
        for t in tensors:
            values = interpreter.get_tensor(t)
            low[t], high[t] = min(low[t], float(values.min())), max(high[t], float(values.max()))
            if t in gate_of:  # where the gate is shut, what x6 says is multiplied by zero
                values = np.maximum(values, -3 / graph.constant(int(gate_of[t].inputs[1])))
            loud[t].append(np.abs(values).reshape(-1, values.shape[-1]).max(axis=0))
    loudness = {t: (np.mean(rows, axis=0) + np.max(rows, axis=0)) / 2 for t, rows in loud.items()}
    ranges = {graph.name(t): (min(low[t], 0.0), max(high[t], 0.0)) for t in tensors}
    return clip_without_loss(graph, ranges), loudness


def clip_without_loss(graph: Graph, ranges: Ranges) -> Ranges:
    """Ranges cut where what lies beyond them has no effect, and set where the operator says what they are."""
    result = dict(ranges)
    for op in graph.operators:
        kind, source, out = graph.kind(op), graph.name(int(op.inputs[0])), graph.name(int(op.outputs[0]))
        if _is_gate(op):
            shut = float((-3 / graph.constant(int(op.inputs[1]))).min())
            result[source] = (max(result[source][0], shut), result[source][1])
            result[out] = (0.0, 6.0)
        elif kind == "LOGISTIC":
            result[source] = (max(result[source][0], -LOGIT), min(result[source][1], LOGIT))
            result[out] = (0.0, 255 / 256)
    result[graph.name(int(graph.graph.inputs[0]))] = (0.0, 1.0)
    return tie_moves(graph, result)


def tie_moves(graph: Graph, ranges: Ranges) -> Ranges:
    """What only moves values does not requantise them: its output has its input's range."""
    result = dict(ranges)
    for op in graph.operators:
        if graph.kind(op) in ("RESIZE_BILINEAR", "DEPTH_TO_SPACE"):
            result[graph.name(int(op.outputs[0]))] = result[graph.name(int(op.inputs[0]))]
    return result


def _is_gate(op: object) -> bool:
    return getattr(getattr(op, "builtinOptions", None), "fusedActivationFunction", 0) == 3
