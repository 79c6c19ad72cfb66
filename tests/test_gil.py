"""The model's thread must not hold up the frame loop: the runtime lets go of the interpreter lock in `invoke`."""

import threading
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from edge_seg.model_card import ModelSettings
from edge_seg.pyramid import Yuv444
from edge_seg.segmenter import open_segmenter
from edge_seg.types import Matrix

RUNTIMES = {"litert": "ai_edge_litert", "tflite": "tflite_runtime"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_threads_run_during_an_inference(runtime: str) -> None:
    if find_spec(RUNTIMES[runtime]) is None:
        pytest.skip(f"{RUNTIMES[runtime]} is not installed here")
    segmenter = open_segmenter(replace(ModelSettings(threads=1), runtime=runtime), (1280, 720))  # type: ignore[arg-type]
    width, height = segmenter.input_size
    plane = np.full((height, width), 100, np.uint8)
    small = Yuv444(plane, plane, plane, Matrix.BT709)
    steps = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal steps
        while not stop.is_set():
            steps += 1

    counter = threading.Thread(target=count)
    counter.start()
    invoke = segmenter._interpreter.invoke
    during = []

    def watched() -> None:
        before = steps
        invoke()
        during.append(steps - before)

    segmenter._interpreter.invoke = watched  # type: ignore[method-assign]
    for _ in range(30):
        segmenter.infer(small)
    stop.set()
    counter.join()
    # A runtime that keeps the lock lets the counter move by the few steps around the call only.
    assert max(during) > 1000
