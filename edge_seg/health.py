"""Is it well? Pure: a status and the time in, the reason why not out."""

from __future__ import annotations

from edge_seg.status import Status

FRESH_NS = 2_000_000_000
"""The newest composited frame may be so old, where the source's own limit (stale_ms) is not longer."""


def unhealthy(status: Status, stale_ms: int, now_ns: int) -> str | None:
    """Why no fresh frame is leaving, in one line; None while one is. A card that says "camera lost" is none."""
    if status.shown_ns is None:
        return _source_problem(status) or "starting: no frame has left yet"
    age_ns = now_ns - status.shown_ns
    if age_ns > max(FRESH_NS, stale_ms * 1_000_000):
        return _source_problem(status) or f"the newest frame left {age_ns / 1e9:.1f} s ago"
    return _outputs_problem(status)


def unready(status: Status, stale_ms: int, now_ns: int) -> str | None:
    """Why viewers do not see what they are to see; None while they do: fresh frames, with masks."""
    reason = unhealthy(status, stale_ms, now_ns)
    if reason is None and status.model_failing:
        reason = "the mask model fails: viewers see the background only"
    return reason


def _source_problem(status: Status) -> str | None:
    if status.source_cause is None:
        return None
    return f"no source: {status.source_cause}".splitlines()[0]


def _outputs_problem(status: Status) -> str | None:
    """All of them, or it is none: one that is lost is retried, and is a metric of its own."""
    lost = [output for output in status.outputs if output.state != "running"]
    if not lost or len(lost) < len(status.outputs):
        return None
    causes = "; ".join(f"{output.name}: {output.cause or output.state}" for output in lost)
    return f"no output runs: {causes}".splitlines()[0]
