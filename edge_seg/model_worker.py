"""The model's own thread: always at work on the newest picture, never waited for past a deadline."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from edge_seg.errors import ModelError
from edge_seg.pyramid import Yuv444
from edge_seg.timings import StageTimes
from edge_seg.types import F32, Mask

log = logging.getLogger(__name__)

KEPT_MASKS = 16
"""Masks nobody collected; older ones are dropped."""

GIVEN_UP_LOOK_S = 0.1
"""How often a wait without a deadline looks whether it is still wanted."""

RETRY_S = 2.0
"""Pause before a model that failed is built anew."""

Job = tuple[Yuv444, int, int]
"""The small picture, its frame's sequence number and capture time."""


class MaskModel(Protocol):
    """What the worker needs of a segmenter."""

    def infer(self, small: Yuv444) -> F32:
        """Probability of a person, float32 in [0, 1], of the shape of `small`. Raises ModelError."""


class ModelWorker:
    """Runs the segmenter on the newest submitted picture and keeps its masks until they are collected."""

    def __init__(self, segmenter: MaskModel, rebuild: Callable[[], MaskModel], times: StageTimes) -> None:
        self._segmenter: MaskModel | None = segmenter
        self._rebuild = rebuild
        self._times = times
        self._condition = threading.Condition()
        self._waiting: Job | None = None
        self._running_seq: int | None = None
        self._started_ns = 0
        self._masks: list[Mask] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.typical_ns = 0
        """How long one inference takes: a running mean. 0 before the first."""
        self.failing = False
        """Whether the newest inference failed."""
        self.runs = 0

    @property
    def is_alive(self) -> bool:
        """Whether masks can still come."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline_s: float) -> bool:
        """Asks the thread to end and waits. Returns whether it did: an inference cannot be interrupted."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def submit(self, small: Yuv444, seq: int, captured_ns: int) -> None:
        """Offers a picture. It replaces one that the model has not begun with."""
        with self._condition:
            self._waiting = (small, seq, captured_ns)
            self._condition.notify_all()

    def collect(
        self, seq: int, deadline_ns: int | None, given_up: Callable[[], bool] = lambda: False
    ) -> list[Mask]:
        """All masks made since the last call, oldest first; waits for the one of frame `seq`.

        It waits until `deadline_ns` (monotonic), not at all when the mask cannot be expected by then, and
        without end when there is no deadline, unless the model fails or `given_up` says that nobody wants it
        any more.
        """
        with self._condition:
            while not self._stopping and not any(mask.seq >= seq for mask in self._masks):
                if not self._is_coming(seq):
                    break
                if deadline_ns is None:
                    if given_up():
                        break
                    self._condition.wait(GIVEN_UP_LOOK_S)
                    continue
                left_ns = deadline_ns - time.monotonic_ns()
                if left_ns <= 0 or self._expected_ns(seq) > deadline_ns:
                    break
                self._condition.wait(left_ns / 1e9)
            masks, self._masks = self._masks, []
            return masks

    def _is_coming(self, seq: int) -> bool:
        return self._running_seq == seq or (self._waiting is not None and self._waiting[1] == seq)

    def _expected_ns(self, seq: int) -> int:
        """When the mask of frame `seq` should be there, going by the typical inference."""
        begin_ns = self._started_ns if self._running_seq is not None else time.monotonic_ns()
        if self._running_seq not in (None, seq):
            begin_ns += self.typical_ns
        return begin_ns + self.typical_ns

    def _run(self) -> None:
        while True:
            job = self._next_job()
            if job is None:
                return
            small, seq, captured_ns = job
            try:
                self._segmenter = self._segmenter or self._rebuild()
                probability = self._segmenter.infer(small)
            except ModelError as error:
                self._segmenter = None
                self._on_failure(error)
                continue
            self._on_mask(Mask(probability, seq=seq, observed_seq=seq, observed_ns=captured_ns))

    def _next_job(self) -> Job | None:
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._waiting is not None)
            if self._stopping:
                return None
            job, self._waiting = self._waiting, None
            assert job is not None
            self._running_seq = job[1]
            self._started_ns = time.monotonic_ns()
            return job

    def _on_mask(self, mask: Mask) -> None:
        with self._condition:
            took_ns = time.monotonic_ns() - self._started_ns
            self.typical_ns = took_ns if self.typical_ns == 0 else (7 * self.typical_ns + took_ns) // 8
            self._times.record("model", took_ns)
            was_failing, self.failing = self.failing, False
            self.runs += 1
            self._running_seq = None
            self._masks = [*self._masks[1 - KEPT_MASKS :], mask]
            self._condition.notify_all()
        if was_failing:
            log.info("the model works again", extra={"event": "model_back"})

    def _on_failure(self, error: ModelError) -> None:
        with self._condition:
            was_failing, self.failing = self.failing, True
            self._running_seq = None
            self._condition.notify_all()
        log.log(
            logging.DEBUG if was_failing else logging.ERROR,
            "the model failed, trying again every %g s until it works: %s", RETRY_S, error,
            extra={"event": "model_failed"},
        )  # fmt: skip
        with self._condition:
            self._condition.wait_for(lambda: self._stopping, RETRY_S)
