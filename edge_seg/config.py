"""What a deployment can set. Each stage owns its settings; this is the whole they make."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_seg.backgrounds import BackgroundSettings
from edge_seg.flow import FlowSettings
from edge_seg.fusion import FusionSettings
from edge_seg.geometry import Geometry
from edge_seg.logs import LogSettings
from edge_seg.matte import MatteSettings
from edge_seg.model_card import ModelSettings
from edge_seg.page.settings import WebSettings
from edge_seg.sinks import OutputSettings, RtspSettings
from edge_seg.sources.base import AutoSettings, SourceSettings


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class LatencySettings(_Section):
    """The promise of how old a picture is when it leaves."""

    budget_ms: Annotated[float, Field(ge=5, le=2000)] = 40
    """From the capture of a frame to its hand-over to the outputs."""


class PrivacySettings(_Section):
    """What viewers see when there is no mask to go by."""

    mode: Literal["closed", "open"] = "closed"
    """closed: only the background. open: the picture as the camera sees it."""
    max_mask_age_ms: Annotated[float, Field(ge=50, le=60_000)] = 1000
    """A mask that the model has not renewed for so long is no longer shown."""


class ReloadSettings(_Section):
    """When the file is read again. On SIGHUP it always is."""

    watch: bool = False
    """Also when the file changes."""


class Config(_Section):
    """Everything the daemon does follows from this."""

    source: Annotated[SourceSettings, Field(discriminator="type")] = AutoSettings()
    """Without it, the first camera that works."""
    geometry: Geometry = Geometry()
    model: ModelSettings = ModelSettings()
    mask_sync: Literal["budget", "exact"] = "budget"
    """budget: the frame leaves in time, with a mask carried by flow if need be. exact: the frame waits for
    its own mask."""
    exact_between: Literal["dropped", "carried"] = "dropped"
    """With mask_sync exact, the frames that came while the model was busy: left out, or shown in their turn
    with a carried mask."""
    latency: LatencySettings = LatencySettings()
    flow: FlowSettings = FlowSettings()
    fusion: FusionSettings = FusionSettings()
    matte: MatteSettings = MatteSettings()
    background: BackgroundSettings = BackgroundSettings()
    privacy: PrivacySettings = PrivacySettings()
    outputs: Annotated[list[Annotated[OutputSettings, Field(discriminator="type")]], Field(min_length=1)] = [
        RtspSettings()
    ]
    web: WebSettings = WebSettings()
    reload: ReloadSettings = ReloadSettings()
    log: LogSettings = LogSettings()
