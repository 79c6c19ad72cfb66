"""Exact rewrites of MediaPipe's graph: the same function in float, in operators that int8 kernels take well."""

from __future__ import annotations

import copy
import struct
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from graph import Graph, Op

RELU = schema.ActivationFunctionType.RELU
RELU6 = schema.ActivationFunctionType.RELU6
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def rewrite(graph: Graph, lean: bool = True) -> None:
    """All of them, in order; `lean` includes those that make the decoder cheaper."""
    fold_half_precision(graph)
    unfold_transposed_convolution(graph)
    fuse_relu(graph)
    pool_by_mean(graph)
    split_hard_swish(graph)
    if lean:
        convolve_before_resize(graph)
        pool_apart(graph)
    twin_before_residuals(graph)
    graph.tidy()


def fold_half_precision(graph: Graph) -> None:
    """Constants in float16 behind a DEQUANTIZE become float32 constants."""
    kept = []
    for op in graph.operators:
        source = graph.graph.tensors[op.inputs[0]]
        if graph.kind(op) != "DEQUANTIZE" or source.type != schema.TensorType.FLOAT16:
            kept.append(op)
            continue
        values = graph.constant(int(op.inputs[0]), np.float16).astype(np.float32)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        graph.model.buffers.append(buffer)
        graph.graph.tensors[op.outputs[0]].buffer = len(graph.model.buffers) - 1
    graph.replace_operators(kept)


def unfold_transposed_convolution(graph: Graph) -> None:
    """The last layer, MediaPipe's custom Convolution2DTransposeBias, 2x2 with stride 2 and one channel.

    Its four outputs per pixel do not overlap: a 1x1 convolution to four channels, the sigmoid, and
    DEPTH_TO_SPACE are the same. XNNPACK's TRANSPOSE_CONV took a fifth of the whole int8 inference for it, and
    the four get a weight scale each.
    """
    result: list[Any] = []
    for op in graph.operators:
        if graph.kind(op) != "CUSTOM":
            result.append(op)
            continue
        # Its options are three int32: TfLitePadding (1 same, 2 valid), stride along x, stride along y.
        options = struct.unpack("<3i", bytes(bytearray(op.customOptions)))
        picture, weights, bias = (int(t) for t in op.inputs)
        logits = int(op.outputs[0])
        (sigmoid,) = graph.consumers(logits)
        mask = int(sigmoid.outputs[0])
        if (
            options[1:] != (2, 2)
            or graph.shape(weights)[:3] != (1, 2, 2)
            or graph.kind(sigmoid) != "LOGISTIC"
        ):
            raise ValueError("expected a transposed convolution of 2x2 and stride 2 before the last sigmoid")
        _, rows, cols, channels = graph.shape(picture)
        four = graph.add_tensor("logits", (1, rows, cols, 4))
        probability = graph.add_tensor("probability", (1, rows, cols, 4))
        w = graph.add_constant("logits/w", graph.constant(weights).reshape(4, 1, 1, channels))
        b = graph.add_constant("logits/b", np.repeat(graph.constant(bias), 4))
        one = schema.Conv2DOptionsT()
        one.padding = schema.Padding.SAME
        one.strideW = one.strideH = one.dilationWFactor = one.dilationHFactor = 1
        two = schema.DepthToSpaceOptionsT()
        two.blockSize = 2
        result.append(graph.operator(Op.CONV_2D, 1, [picture, w, b], [four], one))
        result.append(graph.operator(Op.LOGISTIC, 1, [four], [probability]))
        result.append(graph.operator(Op.DEPTH_TO_SPACE, 1, [probability], [mask], two))
    last = {int(t) for t in graph.graph.outputs}
    graph.replace_operators(
        [op for op in result if graph.kind(op) != "LOGISTIC" or int(op.outputs[0]) not in last]
    )


def fuse_relu(graph: Graph) -> None:
    """A RELU that is the only reader of a convolution becomes its activation."""
    fused = []
    for op in graph.operators:
        readers = graph.consumers(int(op.outputs[0]))
        if (
            graph.kind(op) in CONVOLUTIONS
            and op.builtinOptions.fusedActivationFunction == 0
            and len(readers) == 1
            and graph.kind(readers[0]) == "RELU"
        ):
            op.builtinOptions.fusedActivationFunction = RELU
            op.outputs = readers[0].outputs
            fused.append(readers[0])
    graph.replace_operators([op for op in graph.operators if not any(op is gone for gone in fused)])


def pool_by_mean(graph: Graph) -> None:
    """AVERAGE_POOL_2D over everything becomes MEAN: XNNPACK has only that one in int8."""
    for op in graph.operators:
        if graph.kind(op) != "AVERAGE_POOL_2D":
            continue
        rows, cols = graph.shape(int(op.inputs[0]))[1:3]
        if (op.builtinOptions.filterHeight, op.builtinOptions.filterWidth) != (rows, cols):
            raise ValueError("expected a pool over the whole picture")
        name = graph.name(int(op.outputs[0])) + "/axes"
        op.inputs = np.array([op.inputs[0], graph.add_constant(name, np.array([1, 2], np.int32))], np.int32)
        options = schema.ReducerOptionsT()
        options.keepDims = True
        graph.become(op, Op.MEAN, 2, options)


def split_hard_swish(graph: Graph) -> None:
    """HARD_SWISH(x) = x * relu6(x + 3) / 6 becomes x6 * gate(x6), x6 = x / 6 folded into the convolution before.

    The gate is a depthwise 1x1 convolution, 6 * x6 + 3, with RELU6. XNNPACK takes both in int8 but not
    HARD_SWISH, which would cut the graph into twelve; and the gate's weight per channel lets the channels of
    x6 be scaled freely (see equalize.py).
    """
    result: list[Any] = []
    for op in graph.operators:
        if graph.kind(op) != "HARD_SWISH":
            result.append(op)
            continue
        x, out = int(op.inputs[0]), int(op.outputs[0])
        before = graph.producer(x)
        if graph.kind(before) not in CONVOLUTIONS or len(graph.consumers(x)) != 1:
            raise ValueError("expected a convolution of its own before every hard-swish")
        for constant in before.inputs[1:3]:
            graph.set_constant(int(constant), graph.constant(int(constant)) / 6)
        channels, name = graph.shape(x)[3], graph.name(out)
        weights = graph.add_constant(name + "/gate_w", np.full((1, 1, 1, channels), 6, np.float32))
        bias = graph.add_constant(name + "/gate_b", np.full((channels,), 3, np.float32))
        gate = graph.add_tensor(name + "/gate", graph.shape(x))
        options = schema.DepthwiseConv2DOptionsT()
        options.padding, options.fusedActivationFunction = schema.Padding.VALID, RELU6
        options.strideW = options.strideH = options.depthMultiplier = 1
        options.dilationWFactor = options.dilationHFactor = 1
        result.append(graph.operator(Op.DEPTHWISE_CONV_2D, 1, [x, weights, bias], [gate], options))
        result.append(graph.operator(Op.MUL, 1, [x, gate], [out], schema.MulOptionsT()))
    graph.replace_operators(result)


def convolve_before_resize(graph: Graph) -> None:
    """A 1x1 convolution behind a bilinear resize moves before it, where there are a quarter of the pixels.

    Both are linear, and the weights of the interpolation sum to one, so that the bias passes as well.
    """
    operators = graph.operators
    for resize in [op for op in operators if graph.kind(op) == "RESIZE_BILINEAR"]:
        large = int(resize.outputs[0])
        (conv,) = graph.consumers(large)
        if graph.kind(conv) != "CONV_2D" or graph.shape(int(conv.inputs[1]))[1:3] != (1, 1):
            raise ValueError("expected a 1x1 convolution behind every resize")
        if conv.builtinOptions.fusedActivationFunction != 0:
            raise ValueError("an activation behind a resize does not pass it")
        source, result = int(resize.inputs[0]), int(conv.outputs[0])
        rows, cols = graph.shape(source)[1:3]
        small = graph.add_tensor(graph.name(result) + "/small", (1, rows, cols, graph.shape(result)[3]))
        conv.inputs = np.array([source, *conv.inputs[1:]], np.int32)
        conv.outputs = np.array([small], np.int32)
        resize.inputs = np.array([small, resize.inputs[1]], np.int32)
        resize.outputs = np.array([result], np.int32)
        first, second = operators.index(resize), operators.index(conv)
        operators[first], operators[second] = conv, resize
    graph.replace_operators(operators)


def pool_apart(graph: Graph) -> None:
    """The mean of a sum that nothing else reads becomes the sum of two means.

    That sum tied the scales of its sides, and cost a pass over the whole picture. A mean over a picture that was
    resized to twice its size is one over the small picture: every pixel of it weighs the same.
    """
    result: list[Any] = []
    for op in graph.operators:
        if graph.kind(op) != "MEAN":
            result.append(op)
            continue
        add = graph.producer(int(op.inputs[0]))
        if graph.kind(add) != "ADD" or len(graph.consumers(int(add.outputs[0]))) != 1:
            result.append(op)
            continue
        means = []
        for side in map(int, add.inputs):
            mean = copy.copy(op)
            mean.inputs = np.array([_before_doubling(graph, side), op.inputs[1]], np.int32)
            means.append(graph.add_tensor(graph.name(side) + "/mean", graph.shape(int(op.outputs[0]))))
            mean.outputs = np.array([means[-1]], np.int32)
            result.append(mean)
        result = [kept for kept in result if kept is not add]
        add.inputs, add.outputs = np.array(means, np.int32), op.outputs
        result.append(add)
    graph.replace_operators(result)


def _before_doubling(graph: Graph, tensor: int) -> int:
    """What `tensor` was before it was resized to twice its size; or itself, where it was not."""
    maker = graph.producer(tensor)
    if graph.kind(maker) != "RESIZE_BILINEAR" or not maker.builtinOptions.halfPixelCenters:
        return tensor
    source = int(maker.inputs[0])
    large, small = graph.shape(tensor), graph.shape(source)
    return source if large[1:3] == (2 * small[1], 2 * small[2]) else tensor


def twin_before_residuals(graph: Graph) -> None:
    """In x + depthwise(x), with x from a 1x1 convolution, compute x twice, once for each use.

    The sum ties the scales of its two sides. In the last block of the decoder the depthwise side is thirty
    times larger in some channels, so x got one code value where it needs thirty: more than half of the whole
    quantisation error. With a twin, the x that the depthwise convolution reads is scaled by itself.
    """
    result: list[Any] = []
    for op in graph.operators:
        if graph.kind(op) == "ADD":
            result += _twin(graph, op)
        result.append(op)
    graph.replace_operators(result)


def _twin(graph: Graph, add: Any) -> list[Any]:
    for x, y in (add.inputs, add.inputs[::-1]):
        before, beside = graph.producer(int(x)), graph.producer(int(y))
        if before is None or beside is None or graph.kind(before) != "CONV_2D":
            continue
        if graph.kind(beside) != "DEPTHWISE_CONV_2D" or beside.inputs[0] != x:
            continue
        name = graph.name(int(x)) + "/twin"
        twin = copy.copy(before)
        out = graph.add_tensor(name, graph.shape(int(x)))
        copies = [
            graph.add_constant(f"{name}_{k}", graph.constant(int(t)))
            for k, t in enumerate(before.inputs[1:3])
        ]
        twin.inputs = np.array([before.inputs[0], *copies], np.int32)
        twin.outputs = np.array([out], np.int32)
        add.inputs = np.array([out if t == x else t for t in add.inputs], np.int32)
        return [twin]
    return []
