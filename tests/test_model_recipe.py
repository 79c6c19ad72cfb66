"""The recipe's rewrites and scales keep the function, and its search finds what it is asked for."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

RECIPE = Path(__file__).resolve().parent.parent / "models" / "recipe"
pytest.importorskip("flatbuffers")
pytest.importorskip("ai_edge_litert.schema_py_generated")
sys.path.insert(0, str(RECIPE))

import equalize  # noqa: E402
import nudge  # noqa: E402
import pictures  # noqa: E402
import rewrite  # noqa: E402
import search  # noqa: E402
from ai_edge_litert import schema_py_generated as schema  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402
from graph import Graph, Op  # noqa: E402

from tests.models_builder import TinyModel  # noqa: E402

PICTURES = np.random.default_rng(3).random((4, 1, 6, 8, 3)).astype(np.float32)


def run(graph: Graph) -> np.ndarray:
    interpreter = Interpreter(model_content=graph.to_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    result = []
    for picture in PICTURES:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
        interpreter.invoke()
        result.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.array(result)


def block() -> Graph:
    """1x1 convolution, RELU, plus its own 3x3 depthwise convolution, then a 1x1 convolution and a sigmoid."""
    rng = np.random.default_rng(7)
    graph = Graph(
        TinyModel(weights=rng.normal(0, 1, (5, 3)).tolist(), bias=rng.random(5).tolist()).to_bytes()
    )
    (first,) = graph.operators
    first.builtinOptions.fusedActivationFunction = rewrite.RELU
    x, shape = int(first.outputs[0]), (1, 6, 8, 5)
    # One channel of the depthwise side is much louder than the others.
    loud = np.array([1, 1, 30, 1, 1], np.float32) * rng.normal(0, 1, (1, 3, 3, 5)).astype(np.float32)
    side, total, scores, mask = (graph.add_tensor(n, s) for n, s in (
        ("side", shape), ("total", shape), ("scores2", (1, 6, 8, 1)), ("mask", (1, 6, 8, 1))))  # fmt: skip
    weights = graph.add_constant("dw_w", loud)
    bias = graph.add_constant("dw_b", rng.random(5).astype(np.float32))
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.fusedActivationFunction = schema.Padding.SAME, rewrite.RELU
    options.strideW = options.strideH = options.depthMultiplier = 1
    options.dilationWFactor = options.dilationHFactor = 1
    last_w = graph.add_constant("last_w", rng.normal(0, 0.1, (1, 1, 1, 5)).astype(np.float32))
    last_b = graph.add_constant("last_b", np.zeros(1, np.float32))
    one = schema.Conv2DOptionsT()
    one.strideW = one.strideH = one.dilationWFactor = one.dilationHFactor = 1
    graph.replace_operators(
        [
            first,
            graph.operator(Op.DEPTHWISE_CONV_2D, 1, [x, weights, bias], [side], options),
            graph.operator(Op.ADD, 1, [x, side], [total], schema.AddOptionsT()),
            graph.operator(Op.CONV_2D, 1, [total, last_w, last_b], [scores], one),
            graph.operator(Op.LOGISTIC, 1, [scores], [mask]),
        ]
    )
    graph.graph.outputs = np.array([mask], np.int32)
    graph.tidy()
    return graph


def decoder() -> Graph:
    """As in the decoder: a small map, doubled, convolved, added to a large one; the sum is only pooled."""
    rng = np.random.default_rng(5)
    graph = Graph(
        TinyModel(weights=rng.normal(0, 1, (4, 3)).tolist(), bias=rng.random(4).tolist()).to_bytes()
    )
    (large,) = graph.operators
    x = int(large.outputs[0])
    small, doubled, side, total, pooled, mask = (
        graph.add_tensor(name, (1, rows, cols, 4))
        for name, rows, cols in (
            ("small", 3, 4), ("doubled", 6, 8), ("side", 6, 8), ("total", 6, 8), ("pooled", 1, 1), ("mask", 1, 1),
        )
    )  # fmt: skip
    shrink = schema.DepthwiseConv2DOptionsT()
    shrink.padding, shrink.strideW, shrink.strideH, shrink.depthMultiplier = schema.Padding.SAME, 2, 2, 1
    shrink.dilationWFactor = shrink.dilationHFactor = 1
    one = schema.Conv2DOptionsT()
    one.strideW = one.strideH = one.dilationWFactor = one.dilationHFactor = 1
    resize, mean = schema.ResizeBilinearOptionsT(), schema.ReducerOptionsT()
    resize.halfPixelCenters, mean.keepDims = True, True

    def numbers(name: str, *shape: int) -> int:
        return graph.add_constant(name, rng.normal(0, 1, shape).astype(np.float32))

    size = graph.add_constant("size", np.array([6, 8], np.int32))
    axes = graph.add_constant("axes", np.array([1, 2], np.int32))
    graph.replace_operators(
        [
            large,
            graph.operator(
                Op.DEPTHWISE_CONV_2D, 1, [x, numbers("w1", 1, 3, 3, 4), numbers("b1", 4)], [small], shrink
            ),
            graph.operator(Op.RESIZE_BILINEAR, 3, [small, size], [doubled], resize),
            graph.operator(
                Op.CONV_2D, 1, [doubled, numbers("w2", 4, 1, 1, 4), numbers("b2", 4)], [side], one
            ),
            graph.operator(Op.ADD, 1, [x, side], [total], schema.AddOptionsT()),
            graph.operator(Op.MEAN, 2, [total, axes], [pooled], mean),
            graph.operator(Op.MUL, 1, [side, pooled], [mask], schema.MulOptionsT()),
        ]
    )
    graph.graph.tensors[mask].shape = graph.graph.tensors[side].shape
    graph.graph.outputs = np.array([mask], np.int32)
    graph.tidy()
    return graph


def kinds(graph: Graph) -> list[str]:
    return [graph.kind(op) for op in graph.operators]


def test_a_twin_changes_nothing_but_the_ties() -> None:
    graph = block()
    before = run(graph)
    assert equalize.groups(graph)["scores"] == [graph.index(n) for n in ("scores", "side", "total")]
    rewrite.twin_before_residuals(graph)
    graph.tidy()
    assert np.array_equal(run(graph), before)
    assert kinds(graph).count("CONV_2D") == 3
    assert equalize.groups(graph)["scores"] == [graph.index("scores")]


def test_equalisation_keeps_the_function_and_levels_the_channels() -> None:
    graph = block()
    rewrite.twin_before_residuals(graph)
    graph.tidy()
    before = run(graph)
    rng = np.random.default_rng(1)
    scales = {
        name: np.exp(rng.normal(0, 1, graph.shape(tensors[0])[3])).astype(np.float32)
        for name, tensors in equalize.groups(graph).items()
    }
    equalize.apply(graph, scales)
    assert len(scales) == 2
    assert np.abs(run(graph) - before).max() < 1e-5


def test_the_decoder_convolves_before_it_resizes_and_pools_apart() -> None:
    graph = decoder()
    before = run(graph)
    rewrite.convolve_before_resize(graph)
    rewrite.pool_apart(graph)
    graph.tidy()
    assert np.allclose(run(graph), before, rtol=1e-5, atol=1e-5)
    assert kinds(graph) == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "RESIZE_BILINEAR", "MEAN", "MEAN", "ADD", "MUL",
    ]  # fmt: skip
    small = graph.operators[2].outputs[0]
    assert graph.shape(int(small)) == (1, 3, 4, 4), "a quarter of the pixels"
    assert graph.operators[5].inputs[0] == small, "pooled before it is resized, too"


def test_nudges_carry_a_change_of_weights_and_leave_the_gates_alone() -> None:
    graph, changed = block(), block()
    ranges = dict.fromkeys((graph.name(t) for t in range(len(graph.graph.tensors))), (0.0, 10.0))
    rng = np.random.default_rng(2)
    for op in changed.operators[:2]:
        for tensor in map(int, op.inputs[1:3]):
            values = changed.constant(tensor)
            changed.set_constant(tensor, values + rng.normal(0, 0.01, values.shape))
    changes = nudge.between(graph, changed, ranges)
    assert {values.dtype.name for values in changes.values()} == {"int16"}
    off = np.abs(run(graph) - run(changed)).max()
    nudge.apply(graph, changes, ranges)
    assert np.abs(run(graph) - run(changed)).max() < off / 50
    gate = graph.operators[1]
    gate.builtinOptions.fusedActivationFunction = rewrite.RELU6
    assert f"{graph.name(int(gate.outputs[0]))}.weights" not in nudge.between(graph, changed, ranges)


def test_hard_swish_is_split_exactly() -> None:
    graph = Graph(TinyModel(weights=((9.0, -9.0, 3.0),), bias=(0.3,)).to_bytes())
    (conv,) = graph.operators
    out = graph.add_tensor("swished", (1, 6, 8, 1))
    swish = graph.operator(Op.HARD_SWISH, 1, [int(conv.outputs[0])], [out])
    graph.replace_operators([conv, swish])
    graph.graph.outputs = np.array([out], np.int32)
    graph.tidy()
    before = run(graph)
    rewrite.split_hard_swish(graph)
    graph.tidy()
    assert kinds(graph) == ["CONV_2D", "DEPTHWISE_CONV_2D", "MUL"]
    assert before.min() < 0 < 3 < before.max(), "all three pieces of the function are met"
    assert np.abs(run(graph) - before).max() < 1e-5


def test_a_relu_moves_into_the_convolution() -> None:
    graph = Graph(TinyModel(weights=((1.0, -1.0, 0.0),), bias=(0.0,)).to_bytes())
    (conv,) = graph.operators
    out = graph.add_tensor("rectified", (1, 6, 8, 1))
    graph.replace_operators([conv, graph.operator(Op.RELU, 1, [int(conv.outputs[0])], [out])])
    graph.graph.outputs = np.array([out], np.int32)
    graph.tidy()
    before = run(graph)
    rewrite.fuse_relu(graph)
    graph.tidy()
    assert kinds(graph) == ["CONV_2D"]
    assert np.array_equal(run(graph), before)


def test_the_search_finds_the_range_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the quantiser: the mask is off by how far the range of `total` is from 4."""
    graph = block()
    monkeypatch.setattr(search, "quantize", lambda content, ranges: ranges)

    def masks(content: object, pictures: np.ndarray) -> np.ndarray:
        off = abs(np.log(content["total"][1] / 4)) if isinstance(content, dict) else 0.0
        return np.full((len(pictures), 2, 2), off)

    monkeypatch.setattr(search, "run", masks)
    ranges = dict.fromkeys(("scores", "side", "total", "scores2", "mask"), (0.0, 10.0))
    found = search.search(graph, ranges, np.zeros((1, 2, 6, 8, 3), np.uint8), say=lambda line: None)
    assert found["total"][1] == pytest.approx(4, rel=0.13)
    assert found["side"] == (0.0, 10.0)


def test_jitter_counts_more_than_a_steady_error() -> None:
    theirs = np.zeros((2, 4, 4), np.float32)
    steady = np.full((2, 4, 4), 0.1, np.float32)
    jumping = steady * np.array([1, -1])[:, None, None]
    assert search.disagreement(theirs, theirs) == 0
    assert search.disagreement(jumping, theirs) > search.disagreement(steady, theirs) > 0


def test_pictures_are_pairs_of_one_scene_and_stills_are_shaken(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    scene = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (320, 180), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "still.png"), scene)

    def everywhere(pair: np.ndarray) -> np.ndarray:
        return np.ones(pair.shape[:3], np.float32)

    found = pictures.pairs([tmp_path], (64, 36), 12, everywhere, [])
    assert found.shape == (12, 2, 36, 64, 3)
    assert found.dtype == np.uint8
    change = np.abs(found[:, 0].astype(int) - found[:, 1]).mean(axis=(1, 2, 3))
    others = np.abs(found[0, 0].astype(int) - found[1:, 0]).mean(axis=(1, 2, 3))
    assert (change > 0).all()
    assert np.median(change) < 0.5 * np.median(others)
    assert np.array_equal(found, pictures.pairs([tmp_path], (64, 36), 12, everywhere, []))
