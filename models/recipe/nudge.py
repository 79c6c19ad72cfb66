"""Small changes of weights and biases that make up for what quantisation does, as tune.py learns them.

A plan holds them as whole numbers, so that the same file comes out anywhere: weights in parts of their int8 step,
biases in parts of the step of the tensor that they are added into. The parts are fine, because what was measured is
one particular rounding of all weights: sixteenths moved the agreement on new pictures by a fifth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from graph import Graph
from quantize import Ranges

PARTS = 256
Nudges = dict[str, np.ndarray]
"""By the name of a convolution's output, with .weights or .bias behind it: int16."""


def apply(graph: Graph, nudges: Nudges, ranges: Ranges) -> None:
    """Change the weights and biases of the graph, whose channels are scaled already."""
    for key, tensor, step in _constants(graph, ranges):
        if key in nudges:
            values = graph.constant(tensor) + nudges[key].astype(np.float32) * (step / np.float32(PARTS))
            graph.set_constant(tensor, values)


def between(graph: Graph, changed: Graph, ranges: Ranges) -> Nudges:
    """What makes `graph` into `changed`, which has the same tensors with other values, as nearly as it goes."""
    result = {}
    for key, tensor, step in _constants(graph, ranges):
        parts = (changed.constant(tensor) - graph.constant(tensor)) / step * PARTS
        limit = np.iinfo(np.int16).max
        result[key] = np.clip(np.rint(parts), -limit, limit).astype(np.int16)
    return result


def _constants(graph: Graph, ranges: Ranges) -> Iterator[tuple[str, int, np.ndarray]]:
    """Key, tensor and step of all weights and biases but those of the gates, whose 6 and 3 are the function."""
    for op in graph.operators:
        kind = graph.kind(op)
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or is_gate(op):
            continue
        _, weights, bias = (int(t) for t in op.inputs)
        name = graph.name(int(op.outputs[0]))
        axes = (1, 2, 3) if kind == "CONV_2D" else (0, 1, 2)
        loudest = np.abs(graph.constant(weights)).max(axis=axes, keepdims=True)
        yield f"{name}.weights", weights, np.maximum(loudest, np.float32(1e-8)) / np.float32(127)
        low, high = ranges[name]
        yield f"{name}.bias", bias, np.float32((high - low) / 255)


def is_gate(op: Any) -> bool:
    """Whether it is the gate of a hard-swish: the only kind of operator with a RELU6."""
    return bool(getattr(op.builtinOptions, "fusedActivationFunction", 0) == 3)
