"""Learn ranges, channel scales and small changes of the weights, so that the int8 mask follows the float one.

Gradient descent through a simulation of the int8 model (simulate.py), with the float model as the teacher: no
labels. What counts as better is decided on pictures put aside and by the real int8 model, never by the simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from equalize import Scales
from graph import Graph
from quantize import Ranges, quantize, run
from search import disagreement
from simulate import Simulator

PAIRS_PER_STEP = 4
LOOK_EVERY = 75
WARM_UP = 20
SURE = 3e-4
"""The teacher's probability is taken to be at least that far from 0 and 1: beyond, a logit says nothing."""
Tuned = tuple[Graph, Scales, Ranges]


def tune(
    graph: Graph,
    ranges: Ranges,
    pairs: np.ndarray,
    aside: np.ndarray,
    steps: int,
    haste: float = 1.0,
    say: Callable[[str], None] = print,
) -> Tuned:
    """The graph with changed weights, the factors of its channels among that, and ranges.

    `pairs` to learn from and those put `aside` have the shape (n, 2, rows, cols, 3), uint8, RGB. `haste` scales all
    rates: the masks get worse at first at 1, a second run from there is best at 0.25.
    """
    content = graph.to_bytes()
    targets = np.array([run(content, pair) for pair in pairs])
    looked_at, truth = aside.reshape(-1, *aside.shape[2:]), np.array([run(content, pair) for pair in aside])
    truth = truth.reshape(-1, *truth.shape[2:])
    simulator = Simulator(graph, ranges)
    step = _optimiser(simulator)
    rng = np.random.default_rng(0)
    best, lowest, started = simulator.result(), np.inf, time.monotonic()
    for k in range(steps + 1):
        if k % LOOK_EVERY == 0 or k == steps:
            found = simulator.result()
            ours = run(quantize(found[0].to_bytes(), found[2]), looked_at)
            value = disagreement(ours, truth)
            say(
                f"step {k} of {steps}: {value:.6f}, mean absolute difference {np.abs(ours - truth).mean():.4f} "
                f"({time.monotonic() - started:.0f} s)"
            )
            if value < lowest:
                best, lowest = found, value
        chosen = rng.integers(len(pairs), size=PAIRS_PER_STEP)
        pictures = pairs[chosen].reshape(-1, *pairs.shape[2:]).astype(np.float32) / 255
        masks = targets[chosen].reshape(-1, *targets.shape[2:])
        rate = haste * min(1.0, (k + 1) / WARM_UP) * (0.02 + 0.49 * (1 + np.cos(np.pi * k / steps)))
        step(pictures, masks, tf.constant(k + 1.0), tf.constant(rate, tf.float32))
    return best


def _optimiser(simulator: Simulator) -> Callable[..., None]:
    """One step of Adam, each parameter at its own rate."""
    variables = [variable for variable, _ in simulator.parameters]
    rates = [rate for _, rate in simulator.parameters]
    first = [tf.Variable(tf.zeros_like(v)) for v in variables]
    second = [tf.Variable(tf.zeros_like(v)) for v in variables]

    @tf.function
    def step(pictures: tf.Tensor, masks: tf.Tensor, number: tf.Tensor, rate: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = _loss(*simulator.masks(pictures), masks)
        for variable, gradient, mean, square, own in zip(
            variables, tape.gradient(loss, variables), first, second, rates, strict=True
        ):
            if gradient is None:  # what a clip without loss has made constant
                continue
            gradient = tf.clip_by_norm(gradient, 1.0)
            mean.assign(0.9 * mean + 0.1 * gradient)
            square.assign(0.99 * square + 0.01 * gradient**2)
            move = (mean / (1 - 0.9**number)) / (tf.sqrt(square / (1 - 0.99**number)) + 1e-8)
            variable.assign_sub(own * rate * move)

    return step


def _loss(ours: tf.Tensor, logits: tf.Tensor, theirs: tf.Tensor) -> tf.Tensor:
    """As search.disagreement, and a little cross-entropy, which still pulls where the sigmoid is flat."""
    error = ours - theirs
    change = error[1::2] - error[::2]
    sure = tf.clip_by_value(tf.nn.space_to_depth(theirs[..., None], 2), SURE, 1 - SURE)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(sure, logits)
    return (
        tf.reduce_mean(error**2)
        + 0.5 * tf.reduce_mean(change**2)
        + 0.1 * tf.reduce_mean(tf.abs(error))
        + 0.2 * tf.reduce_mean(entropy)
    )
