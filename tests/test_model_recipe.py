"""The recipe's rewrites and scales keep the function, and its search finds what it is asked for."""

import sys
from pathlib import Path

import numpy as np
import pytest

RECIPE = Path(__file__).resolve().parent.parent / "models" / "recipe"
pytest.importorskip("flatbuffers")
pytest.importorskip("ai_edge_litert.schema_py_generated")
sys.path.insert(0, str(RECIPE))

import equalize  # noqa: E402
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
