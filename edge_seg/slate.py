"""What viewers see while there is no picture: a plain card with a line of text."""

from __future__ import annotations

import cv2

from edge_seg.types import I420

LUMA, TEXT_LUMA, NEUTRAL = 40, 200, 128


def draw(out: I420, text: str) -> None:
    """Fills `out` with a dark card that says `text` in its middle."""
    out.y[:] = LUMA
    out.u[:] = NEUTRAL
    out.v[:] = NEUTRAL
    font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, out.height / 500, max(1, out.height // 300)
    (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    if width > 0.9 * out.width:
        scale *= 0.9 * out.width / width
        (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    origin = ((out.width - width) // 2, (out.height + height) // 2)
    cv2.putText(out.y, text, origin, font, scale, (TEXT_LUMA,), thickness, cv2.LINE_AA)
