"""How the daemon goes: what the engine tells telemetry, the page, health and systemd."""

from __future__ import annotations

from dataclasses import dataclass

from edge_seg.budget import Plan
from edge_seg.output_worker import OutputStatus


@dataclass(frozen=True, slots=True)
class Status:
    """How it goes, since the start."""

    frames_captured: int
    frames_dropped: int
    """Captured, but replaced by newer ones before the loop came to them."""
    frames_out: int
    frame_rate: float
    """Frames a second that leave, over the newest few."""
    shown_ns: int | None
    """When the newest composited frame left, monotonic; None before the first. Cards are none."""
    left_ns: int | None
    """When the newest picture, frame or card, was handed to the outputs."""
    source: str | None
    """What delivers now; None while nothing does."""
    source_cause: str | None
    """Why nothing does, where that is known."""
    source_outages: int
    """How often a source that had delivered was lost."""
    model: str | None
    """The model and what runs it; None before the first frame."""
    model_failing: bool
    """Whether its newest inference failed."""
    misses: int
    """Frames that left later than the budget allows."""
    model_runs: int
    mask_age_ms: float | None
    """From the newest frame that the model has seen to the frame shown last; None without a mask."""
    mask_age_frames: int | None
    plan: Plan
    plan_changes: int
    outputs: tuple[OutputStatus, ...]
