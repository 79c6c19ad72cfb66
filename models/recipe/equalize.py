"""Rescale the channels of the activations against each other, without changing the function.

One scale for all channels of a tensor wastes most of its 256 values on the loudest channel. A channel may be
divided by any positive number where every operator that reads it can multiply it back: cross-layer
equalisation (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721), here through residual sums, bilinear resizes and split hard-swishes as well.
"""

from __future__ import annotations

import numpy as np
from graph import Graph

Scales = dict[str, np.ndarray]
"""Per group of tensors that must share them, by the name of its first tensor: a factor per channel."""

LOUDEST = 64.0
FLOOR = 0.03
"""A nearly dead channel is not blown up further: XNNPACK needs input * weight / output scales below 256."""


def groups(graph: Graph) -> dict[str, list[int]]:
    """Tensors whose channels can be rescaled only together; those that cannot be are left out."""
    parent: dict[int, int] = {}
    fixed = -1

    def find(t: int) -> int:
        parent.setdefault(t, t)
        while parent[t] != t:
            t = parent[t]
        return t

    def tie(a: int, b: int) -> None:
        parent[find(int(a))] = find(int(b))

    tie(graph.graph.inputs[0], fixed)
    tie(graph.graph.outputs[0], fixed)
    for op in graph.operators:
        kind, ins, out = graph.kind(op), op.inputs, int(op.outputs[0])
        if kind == "ADD":
            tie(ins[0], out)
            tie(ins[1], out)
        elif kind in ("RESIZE_BILINEAR", "MEAN"):
            tie(ins[0], out)
        elif kind == "MUL":  # by a gate, which has no convolution behind it to undo a scale
            tie(ins[0], out)
            tie(ins[1], fixed)
        elif kind == "LOGISTIC" or kind == "DEPTH_TO_SPACE":
            tie(ins[0], fixed)
            tie(out, fixed)
        else:
            find(int(ins[0]))
            find(out)
            if op.builtinOptions.fusedActivationFunction == 3:  # RELU6 is not homogeneous
                tie(out, fixed)
    found: dict[int, list[int]] = {}
    for tensor in sorted(parent):
        if tensor != fixed and find(tensor) != find(fixed):
            found.setdefault(find(tensor), []).append(tensor)
    return {graph.name(tensors[0]): tensors for tensors in found.values()}


def scales_for(graph: Graph, loudness: dict[int, np.ndarray], alpha: float = 0.5) -> Scales:
    """How much louder each channel is than its group's geometric mean, tempered by the weights that read it.

    `loudness`: per tensor, a high quantile of |x| in each channel. Where only depthwise convolutions read a
    group, the channels become equally loud; where a dense one does, a part of 1 - `alpha` stays, because its
    weights have one scale for all input channels.
    """
    result = {}
    for name, tensors in groups(graph).items():
        maps = [t for t in tensors if graph.shape(t)[1] > 1] or tensors
        loud = np.max([loudness[t] / max(loudness[t].max(), 1e-6) for t in maps], axis=0)
        loud = np.maximum(loud, FLOOR)
        pressure = np.zeros(len(loud))
        for op in graph.operators:
            if graph.kind(op) != "CONV_2D" or int(op.inputs[0]) not in tensors:
                continue
            weights = np.abs(graph.constant(int(op.inputs[1])))
            rows = weights.max(axis=(1, 2, 3), keepdims=True)
            pressure = np.maximum(pressure, (weights / np.maximum(rows, 1e-9)).max(axis=(0, 1, 2)))
        factor = loud
        if pressure.max() > 0:
            factor = loud**alpha / np.maximum(pressure / pressure.max(), 1e-3) ** (1 - alpha)
        factor = factor / np.exp(np.log(factor).mean())
        result[name] = np.clip(factor, 1 / LOUDEST, LOUDEST).astype(np.float32)
    return result


def apply(graph: Graph, scales: Scales) -> None:
    """Divide the channels of each group by its scales, and undo that in everything that reads them."""
    of = {t: scales[name] for name, tensors in groups(graph).items() if name in scales for t in tensors}
    for op in graph.operators:
        kind, out = graph.kind(op), int(op.outputs[0])
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            source, w, b = (int(t) for t in op.inputs)
            weights, bias = graph.constant(w), graph.constant(b)
            if source in of:
                weights = weights * of[source]
            if out in of:
                weights = weights / (of[out][:, None, None, None] if kind == "CONV_2D" else of[out])
                bias = bias / of[out]
            graph.set_constant(w, weights)
            graph.set_constant(b, bias)
