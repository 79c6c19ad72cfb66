"""Search for ranges of the activations that keep the int8 mask close to the float one, and as steady."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from graph import Graph
from quantize import Ranges, quantize, run, tie_moves

STEPS = (0.8, 1.25)
GAIN = 0.999
"""A move must win at least a thousandth: less is noise of the pictures."""


def disagreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far two series of masks are apart. Shape: (2 n, rows, cols), frames in consecutive pairs.

    Squares, because large errors are what is seen; the change of the error from frame to frame, because that
    is the jitter (dtSSD) that quantisation adds; a little of the absolute error against many small ones.
    """
    error = ours - theirs
    change = error[1::2] - error[::2]
    return float((error**2).mean() + 0.5 * (change**2).mean() + 0.1 * np.abs(error).mean())


def search(
    graph: Graph, ranges: Ranges, pairs: np.ndarray, passes: int = 1, say: Callable[[str], None] = print
) -> Ranges:
    """Coordinate descent over the ranges, largest tensors first; pairs has shape (n, 2, rows, cols, 3)."""
    content = graph.to_bytes()
    pictures = pairs.reshape(-1, *pairs.shape[2:])
    theirs = run(content, pictures)

    def cost(candidate: Ranges) -> float:
        return disagreement(run(quantize(content, tie_moves(graph, candidate)), pictures), theirs)

    best, lowest = dict(ranges), cost(ranges)
    say(f"start {lowest:.6f}")
    started = time.monotonic()
    for number in range(passes):
        for name in free_ranges(graph):
            for step in STEPS:
                improved = False
                while (value := cost(moved := _scaled(best, name, step))) < lowest * GAIN:
                    best, lowest, improved = moved, value, True
                if improved:
                    say(f"pass {number} {name} {lowest:.6f} ({time.monotonic() - started:.0f} s)")
                    break
    return tie_moves(graph, best)


def free_ranges(graph: Graph) -> list[str]:
    """The activations whose range is a choice, largest tensor first."""
    fixed = {int(graph.graph.inputs[0]), int(graph.graph.outputs[0])}
    for op in graph.operators:
        kind, out = graph.kind(op), int(op.outputs[0])
        gate = getattr(op.builtinOptions, "fusedActivationFunction", 0) == 3
        if kind in ("LOGISTIC", "RESIZE_BILINEAR", "DEPTH_TO_SPACE") or gate:
            fixed.add(out)
    free = [int(op.outputs[0]) for op in graph.operators if int(op.outputs[0]) not in fixed]
    return [graph.name(t) for t in sorted(free, key=lambda t: -int(np.prod(graph.shape(t))))]


def _scaled(ranges: Ranges, name: str, step: float) -> Ranges:
    low, high = ranges[name]
    # A short negative tail (of a hard-swish) is kept whole; a range about zero shrinks on both sides.
    return ranges | {name: (low * step if low < -0.3 * high else low, high * step)}
