"""First mask -> (carried along the flow) third mask -> (with the model's second mask) target mask.

Each element of the mask is a scalar Kalman filter (R. E. Kalman, 1960) in probability: what is carried loses
trust where the picture does not fit the flow, what is measured has little where the model is undecided, or
where its mask had to be carried far because it came late. Luma says what belongs together, when the mask is
carried and when it is smoothed. What is known of the room speaks for or against what the model says of a person
before it. docs/fusion.md has the figures behind the defaults.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, NamedTuple

import cv2
import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from edge_seg import carry_reference, kalman_reference, kernels
from edge_seg.alike import Picture
from edge_seg.plate_reference import Plate
from edge_seg.scene import Scene
from edge_seg.types import F32, U8, BlockFlow, Mask

_carry = kernels.load("carry") or carry_reference
_kalman = kernels.load("kalman") or kalman_reference


@dataclass(frozen=True)
class FusionSettings:
    """How far to believe what was seen before. docs/fusion.md says what each is worth."""

    noise: Annotated[float, Gt(0), Le(1)] = 0.3
    """Variance of the model's mask where it is undecided (probability 0.5)."""
    noise_floor: Annotated[float, Gt(0), Le(1)] = 0.2
    """Variance of the model's mask where it is sure, as a share of `noise`."""
    drift: Annotated[float, Gt(0), Le(1)] = 0.001
    """Variance that a carried mask gains a frame, however well the flow fits."""
    misfit: Annotated[float, Ge(0), Le(1)] = 0.0008
    """Variance that it gains for each squared code value of luma difference after motion compensation."""
    carry_luma: Annotated[float, Gt(0), Le(255)] = 16.0
    """Luma difference, in code values, from which on two places count as different when a mask is carried."""
    smooth_luma: Annotated[float, Gt(0), Le(255)] = 32.0
    """The same when the target mask is smoothed."""
    chroma: Annotated[float, Ge(0), Le(100)] = 3.0
    """How much more than luma chroma counts in these differences (their squares). 0: not at all."""
    background: bool = True
    """Whether the background is remembered where nobody stands before it, so that what differs from it is more
    likely a person, and what does not is less likely one. Of use where camera and room stand still; a moving
    camera is noticed."""
    scene_similarity: Annotated[float, Ge(0), Le(1)] = 0.8
    """A frame less like the one before, moved, is a new scene, and everything before it is forgotten.
    0: never."""
    history: Annotated[int, Ge(0), Le(64)] = 30
    """How many frames late a mask of the model may come: a second, as long as privacy.max_mask_age_ms lets one
    live. A model of a quarter of a second is eight frames late, and more while something else is going on."""


DEFAULTS = FusionSettings()


def kernels_name() -> str:
    """Which of the two equal implementations runs."""
    return "NumPy" if _carry is carry_reference else "C"


EXACT_LUMA = 1.0
"""Luma difference, in code values, up to which an element is carried from exactly where its vector points."""
REPEAT = 0.1
"""Difference between the carried and the measured mask, from which on the target mask is smoothed fully."""


class _Step(NamedTuple):
    """How the frame `seq` came from the one before."""

    seq: int
    picture: Picture
    chroma_weight: float
    flow: BlockFlow | None

    @property
    def luma(self) -> U8:
        return self.picture[0]


class _State(NamedTuple):
    probability: F32
    """Others may have it: never changed."""
    variance: F32
    """Changed in place by each mask."""
    observed_seq: int
    observed_ns: int


@dataclass(frozen=True)
class _Plate:
    """The background, as far as it was seen without a person. Changed in place by each mask."""

    picture: Picture
    chroma_weight: float
    seen: U8
    """How well each element is known, in frames."""
    sums: NDArray[np.float64]
    """How often background and person differ from it: `plate_reference.evidence`."""

    @classmethod
    def of(cls, step: _Step) -> _Plate:
        y, u, v = step.picture
        return cls((y.copy(), u.copy(), v.copy()), step.chroma_weight, np.zeros_like(y), np.zeros(4))


class Fusion:
    """The recursion over the frames of one stream. It has no clock and no threads."""

    def __init__(self, settings: FusionSettings = DEFAULTS) -> None:
        self._settings = settings
        self._steps: deque[_Step] = deque(maxlen=settings.history + 1)
        """From the frame of the newest mask to the current one."""
        self._state: _State | None = None
        self._plate: _Plate | None = None
        self._scene = Scene()
        self.scene_cuts = 0
        """How often `advance` saw a new scene."""

    def adjust(self, settings: FusionSettings) -> None:
        """Other settings from the next frame on; what is known stays."""
        self._settings = settings
        self._steps = deque(self._steps, maxlen=settings.history + 1)

    def reset(self) -> None:
        """Forgets everything: what comes next has nothing to do with what was."""
        self._steps.clear()
        self._state = None
        self._plate = None
        self._scene = Scene()

    def advance(
        self,
        previous_luma: U8 | None,
        luma: U8,
        flow: BlockFlow | None,
        seq: int,
        captured_ns: int,
        chroma: tuple[U8, U8] | None = None,
    ) -> None:
        """Moves on to frame `seq`: the first mask becomes the third.

        `luma`: (h, w), uint8, the grid of masks and flow. `flow` leads from it to `previous_luma`, that of
        the last call's frame. Without them, with another shape, or on a scene cut, the recursion begins anew.
        `chroma`: (u, v), each (h, w), uint8; what belongs together shows far better with it than without.
        """
        if chroma is None:
            picture, weight = (luma, luma, luma), 0.0
        else:
            picture, weight = (luma, *chroma), self._settings.chroma
            if chroma[0].shape != luma.shape or chroma[1].shape != luma.shape:
                raise ValueError(
                    f"chroma {chroma[0].shape}, {chroma[1].shape} is not of luma's shape {luma.shape}"
                )
        if not self._continues(previous_luma, luma, flow):
            self.reset()
            self._steps.append(_Step(seq, picture, weight, None))
            return
        before, step = self._steps[-1], _Step(seq, picture, weight, flow)
        self._steps.append(step)
        if self._state is not None:
            probability, variance = self._carry(before, step, self._state.probability, self._state.variance)
            self._state = _State(probability, variance, self._state.observed_seq, self._state.observed_ns)

    def observe(self, mask: Mask) -> bool:
        """Takes the model's mask of the current frame, or of an earlier one: that is carried to the current.

        Masks come in the order of their frames. False if the mask is of a frame that is not, or no more, known: from
        before a reset, from before the last mask's frame, or too old.
        """
        if not self._forget_before(mask.seq):
            return False
        settings, state, step = self._settings, self._state, self._steps[-1]
        measured = self._on_grid(mask.probability, step.luma.shape)
        variance = None
        if len(self._steps) > 1:
            variance = self._uncertainty(measured)
            for before, after in pairwise(self._steps):
                measured, variance = self._carry(before, after, measured, variance)
        if state is None:
            self._plate = _Plate.of(step) if settings.background else None
            variance = self._uncertainty(measured) if variance is None else variance
            self._state = _State(measured.copy(), variance, mask.observed_seq, mask.observed_ns)
            return True
        probability = np.empty_like(measured)
        _kalman.update(
            step.picture,
            state.probability,
            state.variance,
            measured,
            variance,
            probability,
            settings.noise,
            settings.noise_floor,
            settings.smooth_luma,
            step.chroma_weight,
            REPEAT,
            self._known(step),
        )
        self._state = _State(probability, state.variance, mask.observed_seq, mask.observed_ns)
        return True

    def _forget_before(self, seq: int) -> bool:
        """Forgets the steps before frame `seq`, of which no mask will come any more. False if it is not known."""
        steps = self._steps
        while len(steps) > 1 and steps[0].seq < seq:
            steps.popleft()
        return bool(steps) and steps[0].seq == seq

    def _uncertainty(self, measured: F32) -> F32:
        variance = np.empty_like(measured)
        _kalman.uncertainty(measured, variance, self._settings.noise, self._settings.noise_floor)
        return variance

    def _known(self, step: _Step) -> Plate | None:
        """What is known of the background of this step; None if nothing is, or nobody wants to know."""
        if not self._settings.background:
            return None
        plate = self._plate
        if plate is None or plate.chroma_weight != step.chroma_weight:
            self._plate = _Plate.of(step)
            return None
        return plate.picture, plate.seen, plate.sums

    def target(self) -> Mask | None:
        """The mask of the current frame; None when the model has seen nothing of this scene yet."""
        if self._state is None or not self._steps:
            return None
        state = self._state
        return Mask(state.probability, self._steps[-1].seq, state.observed_seq, state.observed_ns)

    def _continues(self, previous_luma: U8 | None, luma: U8, flow: BlockFlow | None) -> bool:
        if previous_luma is None or flow is None or not self._steps:
            return False
        if previous_luma.shape != luma.shape or self._steps[-1].luma.shape != luma.shape:
            return False
        if flow.grid_shape != luma.shape:
            raise ValueError(
                f"flow on the grid {flow.grid_shape}, luma on {luma.shape}: they must be the same"
            )
        if self._scene.goes_on(previous_luma, luma, flow, self._settings.scene_similarity):
            return True
        self.scene_cuts += 1
        return False

    def _carry(self, before: _Step, step: _Step, probability: F32, variance: F32) -> tuple[F32, F32]:
        settings, flow = self._settings, step.flow
        assert flow is not None
        carried, grown = np.empty_like(probability), np.empty_like(variance)
        _carry.carry(
            before.picture,
            step.picture,
            flow.steps,
            flow.residual,
            flow.block_px,
            probability,
            variance,
            carried,
            grown,
            settings.carry_luma,
            min(before.chroma_weight, step.chroma_weight),
            EXACT_LUMA,
            settings.drift,
            settings.misfit,
        )
        return carried, grown

    @staticmethod
    def _on_grid(probability: F32, shape: tuple[int, ...]) -> F32:
        """The mask at the size of the luma grid: the caller's own if it has that."""
        if probability.shape == shape:
            return probability
        resized = cv2.resize(probability, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.clip(resized, 0, 1).astype(np.float32)
