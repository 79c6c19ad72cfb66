import logging
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edge_seg import model_worker
from edge_seg.errors import ModelError
from edge_seg.model_worker import MaskModel, ModelWorker
from edge_seg.pyramid import Yuv444
from edge_seg.timings import StageTimes
from edge_seg.types import F32, Matrix

PLANE = np.zeros((4, 4), np.uint8)
SMALL = Yuv444(PLANE, PLANE, PLANE, Matrix.BT709)
FOREVER_NS = 10**18


class GatedSegmenter:
    """Finishes one inference each time its gate is opened."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def infer(self, small: Yuv444) -> F32:
        self.begun.release()
        assert self.gate.acquire(timeout=30)
        return np.full((4, 4), 0.5, np.float32)


def never() -> GatedSegmenter:
    raise AssertionError("not to be rebuilt")


def worker_of(segmenter: MaskModel, rebuild: Callable[[], MaskModel] = never) -> ModelWorker:
    worker = ModelWorker(segmenter, rebuild, StageTimes())
    worker.start()
    return worker


def test_the_newest_picture_is_next_and_the_mask_names_its_frame() -> None:
    segmenter = GatedSegmenter()
    worker = worker_of(segmenter)
    worker.submit(SMALL, 1, 100)
    assert segmenter.begun.acquire(timeout=10)
    worker.submit(SMALL, 2, 200)
    worker.submit(SMALL, 3, 300)
    segmenter.gate.release(2)
    masks = worker.collect(3, FOREVER_NS)
    assert [(mask.seq, mask.observed_seq, mask.observed_ns) for mask in masks] == [(1, 1, 100), (3, 3, 300)]
    assert worker.stop(5)


def test_nobody_waits_past_the_deadline() -> None:
    segmenter = GatedSegmenter()
    worker = worker_of(segmenter)
    worker.submit(SMALL, 1, 0)
    assert worker.collect(1, time.monotonic_ns() + 20_000_000) == []
    segmenter.gate.release()
    assert [mask.seq for mask in worker.collect(1, None)] == [1]
    assert worker.stop(5)


def test_nobody_waits_for_a_mask_that_cannot_come_in_time() -> None:
    segmenter = GatedSegmenter()
    worker = worker_of(segmenter)
    worker.typical_ns = FOREVER_NS // 4
    worker.submit(SMALL, 1, 0)
    assert segmenter.begun.acquire(timeout=10)
    started = time.monotonic()
    assert worker.collect(1, time.monotonic_ns() + 60_000_000_000) == []
    assert time.monotonic() - started < 30
    segmenter.gate.release()
    assert worker.stop(5)


def test_nobody_waits_for_a_picture_that_was_never_submitted() -> None:
    worker = worker_of(GatedSegmenter())
    assert worker.collect(7, None) == []
    assert worker.stop(5)


def test_a_model_that_fails_is_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_worker, "RETRY_S", 0.01)

    class Broken:
        def infer(self, small: Yuv444) -> F32:
            raise ModelError("broken")

    healthy = GatedSegmenter()
    healthy.gate.release()
    worker = worker_of(Broken(), lambda: healthy)
    worker.submit(SMALL, 1, 0)
    assert worker.collect(1, None) == []
    assert worker.failing
    worker.submit(SMALL, 2, 0)
    assert [mask.seq for mask in worker.collect(2, None)] == [2]
    assert worker.runs == 1
    assert not worker.failing
    assert worker.stop(5)


def test_a_model_that_goes_on_failing_is_one_line_and_its_return_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(model_worker, "RETRY_S", 0.001)
    healthy, tries = GatedSegmenter(), []

    class Broken:
        def infer(self, small: Yuv444) -> F32:
            raise ModelError("broken")

    def rebuild() -> MaskModel:
        tries.append(1)
        return Broken() if len(tries) < 5 else healthy

    healthy.gate.release()
    with caplog.at_level(logging.INFO):
        worker = worker_of(Broken(), rebuild)
        deadline = time.monotonic() + 20
        while worker.runs == 0 and time.monotonic() < deadline:
            worker.submit(SMALL, 1, 0)
            time.sleep(0.002)
        healthy.gate.release(10)  # for what was submitted meanwhile
        assert worker.stop(5)
    events = [getattr(record, "event", None) for record in caplog.records]
    assert len(tries) == 5
    assert events == ["model_failed", "model_back"]


def test_stop_does_not_wait_for_an_inference_that_hangs() -> None:
    segmenter = GatedSegmenter()
    worker = worker_of(segmenter)
    worker.submit(SMALL, 1, 0)
    assert segmenter.begun.acquire(timeout=10)
    assert not worker.stop(0.05)
    segmenter.gate.release()
    assert worker.stop(5)
