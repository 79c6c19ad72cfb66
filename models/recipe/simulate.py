"""The int8 model in TensorFlow, exact enough to learn from: what a change of ranges, scales or weights does."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from equalize import Scales, groups
from graph import Graph
from nudge import is_gate
from quantize import Ranges, tie_moves

RELU, RELU6 = 1, 3
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
RATE_RANGES, RATE_SCALES, RATE_WEIGHTS, RATE_BIASES = 2e-3, 4e-3, 6e-3, 1e-2
"""Largest steps of the optimiser: of logarithms, then of int8 steps."""


@tf.custom_gradient
def fake_quantise(x: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> Any:
    """To 8 bits and back. The range learns from what it rounds as well as from what it clips.

    (Esser et al., "Learned Step Size Quantization", arXiv:1902.08153.)
    """
    y = tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=8)

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        above, below = tf.cast(x > high, tf.float32), tf.cast(x < low, tf.float32)
        inside = 1 - above - below
        rounding = tf.reduce_sum(g * (y - x) * inside) / (high - low)
        return g * inside, tf.reduce_sum(g * below) - rounding, tf.reduce_sum(g * above) + rounding

    return y, gradient


class Simulator:
    """A graph with ranges whose ranges, channel scales, weights and biases can be learned."""

    def __init__(self, graph: Graph, ranges: Ranges) -> None:
        self._graph, self._ranges = graph, tie_moves(graph, ranges)
        self._groups = groups(graph)
        self._group_of = {t: name for name, tensors in self._groups.items() for t in tensors}
        self._scales = {
            name: tf.Variable(np.zeros(graph.shape(tensors[0])[3], np.float32))
            for name, tensors in self._groups.items()
        }
        self._moved_from: dict[int, int] = {}
        self._widths: dict[int, tuple[tf.Variable, tf.Variable]] = {}
        self._start: dict[int, np.ndarray] = {}
        self._steps: dict[int, np.ndarray] = {}
        self._changes: dict[int, tf.Variable] = {}
        self.parameters: list[tuple[tf.Variable, float]] = [(s, RATE_SCALES) for s in self._scales.values()]
        """Each with the largest step that it should take."""
        for op in graph.operators:
            self._prepare(op)

    def _prepare(self, op: Any) -> None:
        graph, kind, out = self._graph, self._graph.kind(op), int(op.outputs[0])
        if kind in ("RESIZE_BILINEAR", "DEPTH_TO_SPACE"):
            source = int(op.inputs[0])
            self._moved_from[out] = self._moved_from.get(source, source)
        elif kind != "LOGISTIC" and not is_gate(op):
            self._widths[out] = tf.Variable(0.0), tf.Variable(0.0)
            self.parameters += [(width, RATE_RANGES) for width in self._widths[out]]
        if kind not in CONVOLUTIONS:
            return
        weights, bias = (int(t) for t in op.inputs[1:3])
        self._start[weights], self._start[bias] = graph.constant(weights), graph.constant(bias)
        if is_gate(op):
            return
        axes = (1, 2, 3) if kind == "CONV_2D" else (0, 1, 2)
        self._steps[weights] = np.maximum(np.abs(self._start[weights]).max(axes, keepdims=True), 1e-8) / 127
        low, high = self._ranges[graph.name(out)]
        self._steps[bias] = np.float32((high - low) / 255)
        for tensor, rate in ((weights, RATE_WEIGHTS), (bias, RATE_BIASES)):
            self._changes[tensor] = tf.Variable(np.zeros_like(self._start[tensor]))
            self.parameters.append((self._changes[tensor], rate))

    def masks(self, pictures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Probability, shape (n, rows, cols), and the logits before it, shape (n, rows / 2, cols / 2, 4).

        `pictures`: shape (n, rows, cols, 3), float32 in [0, 1], RGB.
        """
        graph = self._graph
        values: dict[int, tf.Tensor] = {int(graph.graph.inputs[0]): pictures}
        logits = pictures
        for op in graph.operators:
            kind, out = graph.kind(op), int(op.outputs[0])
            first = values[int(op.inputs[0])]
            if kind in CONVOLUTIONS:
                value = self._convolve(op, kind, first)
            elif kind == "ADD":
                value = first + values[int(op.inputs[1])]
            elif kind == "MUL":
                value = first * values[int(op.inputs[1])]
            elif kind == "MEAN":
                value = tf.reduce_mean(first, (1, 2), keepdims=True)
            elif kind == "LOGISTIC":
                logits, value = first, tf.sigmoid(first)
            elif kind == "RESIZE_BILINEAR":
                value = tf.image.resize(first, graph.shape(out)[1:3])
            elif kind == "DEPTH_TO_SPACE":
                value = tf.nn.depth_to_space(first, 2)
            else:
                raise ValueError(f"no simulation of {kind}")
            values[out] = fake_quantise(value, *self._range(out))
        return values[int(graph.graph.outputs[0])][..., 0], logits

    def result(self) -> tuple[Graph, Scales, Ranges]:
        """The graph with what was learned in it, the factors of its channels among that, and the ranges."""
        changed = Graph(self._graph.to_bytes())
        for op in changed.operators:
            if changed.kind(op) in CONVOLUTIONS:
                for tensor, values in zip(op.inputs[1:3], self._constants(op), strict=True):
                    changed.set_constant(int(tensor), values.numpy())
        scales = {name: np.exp(scale.numpy()) for name, scale in self._scales.items()}
        tensors = (int(op.outputs[0]) for op in changed.operators)
        learned = {changed.name(t): tuple(float(side) for side in self._range(t)) for t in tensors}
        return changed, scales, self._ranges | learned

    def _range(self, tensor: int) -> tuple[tf.Tensor, tf.Tensor]:
        tensor = self._moved_from.get(tensor, tensor)
        low, high = (tf.constant(float(side)) for side in self._ranges[self._graph.name(tensor)])
        if tensor not in self._widths:
            return low, high
        below, above = self._widths[tensor]
        return low * tf.exp(below), high * tf.exp(above)

    def _convolve(self, op: Any, kind: str, source: tf.Tensor) -> tf.Tensor:
        weights, bias = self._constants(op)
        axes = (1, 2, 3) if kind == "CONV_2D" else (0, 1, 2)
        step = tf.maximum(tf.reduce_max(tf.abs(weights), axes, keepdims=True), 1e-9) / 127
        weights += tf.stop_gradient(tf.round(weights / step) * step - weights)
        kernel = tf.transpose(weights, (1, 2, 3, 0))
        stride = op.builtinOptions.strideH
        padding = "SAME" if op.builtinOptions.padding == 0 else "VALID"
        if kind == "CONV_2D":
            value = tf.nn.conv2d(source, kernel, stride, padding)
        else:
            value = tf.nn.depthwise_conv2d(source, kernel, (1, stride, stride, 1), padding)
        value += bias
        activation = op.builtinOptions.fusedActivationFunction
        return {RELU: tf.nn.relu, RELU6: tf.nn.relu6}.get(activation, tf.identity)(value)

    def _constants(self, op: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Weights and bias with their changes, the channels scaled (see equalize.apply)."""
        source, out = int(op.inputs[0]), int(op.outputs[0])
        weights, bias = (
            self._start[t] + self._changes[t] * self._steps[t]
            if t in self._changes
            else tf.constant(self._start[t])
            for t in (int(t) for t in op.inputs[1:3])
        )
        if source in self._group_of:
            weights *= tf.exp(self._scales[self._group_of[source]])
        if out in self._group_of:
            factor = tf.exp(self._scales[self._group_of[out]])
            wide = factor[:, None, None, None] if self._graph.kind(op) == "CONV_2D" else factor
            weights, bias = weights / wide, bias / factor
        return weights, bias
