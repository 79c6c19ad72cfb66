"""H.264 and H.265 encoders, each with a real trial of one frame; and GStreamer itself."""

from __future__ import annotations

from pathlib import Path

from edge_seg import encoders, gstreamer
from edge_seg.probe import Report

NEEDED = {
    "rtspsrc": "gstreamer1.0-plugins-good",
    "v4l2src": "gstreamer1.0-plugins-good",
    "jpegdec": "gstreamer1.0-plugins-good",
    "h264parse": "gstreamer1.0-plugins-bad",
    "avdec_h264": "gstreamer1.0-libav",
    "rtph264pay": "gstreamer1.0-plugins-good",
    "kmssink": "gstreamer1.0-plugins-bad",
}


def find(root: Path) -> Report:
    """encoders: element, hardware, works, problem, in the order in which they are preferred; gstreamer; missing."""
    missing: list[dict[str, str]] = []
    try:
        gst = gstreamer.load()
    except gstreamer.GStreamerMissing as error:
        missing.append(
            {"what": "GStreamer", "why": str(error), "command": f"sudo apt install {gstreamer.APT_PACKAGES}"}
        )
        return {"encoders": [], "gstreamer": None, "missing": missing}
    try:
        gstreamer.load("GstRtspServer")
    except gstreamer.GStreamerMissing as error:
        missing.append(
            {
                "what": "GstRtspServer",
                "why": str(error),
                "command": "sudo apt install gir1.2-gst-rtsp-server-1.0",
            }
        )
    found = []
    for encoder in sorted(encoders.RANKED, key=lambda one: one.codec):
        problem = encoders.works(encoder)
        entry: Report = {
            "element": encoder.element,
            "codec": encoder.codec,
            "hardware": encoder.hardware,
            "works": problem is None,
        }
        if problem is not None:
            entry["problem"] = problem
        found.append(entry)
    if not any(entry["works"] and entry["codec"] == "h264" for entry in found):
        missing.append(
            {
                "what": "an H.264 encoder",
                "why": "nothing can be served without one",
                "command": "sudo apt install gstreamer1.0-plugins-ugly",
            }
        )
    for element, package in NEEDED.items():
        if gst.ElementFactory.find(element) is None:
            missing.append(
                {"what": element, "why": "a GStreamer element", "command": f"sudo apt install {package}"}
            )
    return {"encoders": found, "gstreamer": gst.version_string(), "missing": missing}
