"""The target mask of each frame, from the model's masks and the mask carried along the flow.

The method's terms: the first mask is the target of the previous frame, the second the model's, the third the first
moved by the flow; the target is made of the second and the third. Each mask element is a scalar Kalman filter:
what was carried is the prediction, what the model says is the measurement.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Le

from edge_seg.types import F32, U8, BlockFlow, Mask

HISTORY = 16
"""Frames a late mask may be behind."""


@dataclass(frozen=True)
class FusionSettings:
    """How steady against how quick."""

    process_noise: Annotated[float, Ge(1e-4), Le(1)] = 0.02
    measurement_noise: Annotated[float, Ge(1e-3), Le(10)] = 0.2
    cut_residual: Annotated[float, Ge(1), Le(255)] = 30.0
    """Mean luma difference after motion compensation, in code values, that is another scene."""


@dataclass(frozen=True)
class _Step:
    """The way from one frame to the next."""

    seq: int
    captured_ns: int
    field: tuple[F32, F32] | None
    """Where each element comes from (x, y), in elements of the previous grid; None at the start of a scene."""
    residual: F32


class Fusion:
    """The recursion over frames. No threads, no clock of its own."""

    def __init__(self, settings: FusionSettings) -> None:
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._steps: deque[_Step] = deque(maxlen=HISTORY)
        self._state: F32 | None = None
        self._variance: F32 | None = None
        self._observed: tuple[int, int] = (-1, 0)

    def advance(
        self, previous_luma: U8 | None, luma: U8, flow: BlockFlow | None, seq: int, captured_ns: int
    ) -> None:
        """A new frame: what is known is carried to it. Another scene starts anew."""
        rows, cols = luma.shape
        if flow is None or float(flow.residual.mean()) > self._settings.cut_residual:
            self.reset()
            self._steps.append(_Step(seq, captured_ns, None, np.zeros((rows, cols), np.float32)))
            return
        size = (cols, rows)
        dx, dy = (cv2.resize(flow.vectors[..., i], size, interpolation=cv2.INTER_LINEAR) for i in (0, 1))
        xs, ys = np.meshgrid(np.arange(cols, dtype=np.float32), np.arange(rows, dtype=np.float32))
        residual = np.asarray(cv2.resize(flow.residual, size, interpolation=cv2.INTER_LINEAR), np.float32)
        step = _Step(seq, captured_ns, (xs + dx, ys + dy), residual)
        self._steps.append(step)
        if self._state is not None and self._variance is not None:
            self._state = _carry(self._state, step)
            noise = self._settings.process_noise * (0.05 + (residual / 5) ** 2)
            self._variance = _carry(self._variance, step) + noise

    def observe(self, mask: Mask) -> bool:
        """Takes a mask of the model, of the current frame or of an earlier one. Returns whether it could."""
        steps = [step for step in self._steps if step.seq > mask.seq]
        if len(steps) == len(self._steps) and mask.seq != self._steps[0].seq - 1:
            return False
        if any(step.field is None for step in steps) or mask.observed_seq <= self._observed[0]:
            return False
        carried = mask.probability
        extra = np.zeros_like(carried)
        for step in steps:
            carried = _carry(carried, step)
            extra = _carry(extra, step) + self._settings.process_noise * (0.05 + (step.residual / 5) ** 2)
        noise = self._settings.measurement_noise * (0.1 + 4 * carried * (1 - carried)) + extra
        if self._state is None or self._variance is None:
            self._state, self._variance = carried.copy(), noise
        else:
            gain = self._variance / (self._variance + noise)
            self._state = self._state + gain * (carried - self._state)
            self._variance = self._variance * (1 - gain)
        self._observed = (mask.observed_seq, mask.observed_ns)
        return True

    def target(self) -> Mask | None:
        """The mask of the current frame, None while nothing is known."""
        if self._state is None:
            return None
        return Mask(self._state, self._steps[-1].seq, *self._observed)


def _carry(values: F32, step: _Step) -> F32:
    assert step.field is not None
    return np.asarray(
        cv2.remap(values, *step.field, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32
    )
