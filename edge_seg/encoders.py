"""The H.264 encoders of this device: which there are, which of them work, and how each is told the same thing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_seg import gstreamer
from edge_seg.errors import SinkError

log = logging.getLogger(__name__)

TRIAL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What an encoder is asked for, whichever it is."""

    bitrate_kbps: int
    gop_frames: int
    """At most this many frames from one key frame to the next; viewers who join get one at once."""
    threads: int


@dataclass(frozen=True, slots=True)
class Encoder:
    """An H.264 encoder element: raw I420 in system memory in, constrained baseline out, no frame held back."""

    element: str
    hardware: bool
    package: str
    launch: Callable[[EncoderSettings], str]
    """The settings -> launch text whose encoder element is named `encoder`."""


def _x264(s: EncoderSettings) -> str:
    return (
        f"x264enc name=encoder tune=zerolatency speed-preset=ultrafast bitrate={s.bitrate_kbps} "
        f"key-int-max={s.gop_frames} threads={s.threads} vbv-buf-capacity=500"
        " ! video/x-h264,profile=constrained-baseline"
    )


def _openh264(s: EncoderSettings) -> str:
    return (
        f"openh264enc name=encoder complexity=low rate-control=bitrate bitrate={s.bitrate_kbps * 1000} "
        f"gop-size={s.gop_frames} multi-thread={s.threads} enable-frame-skip=false"
        " ! video/x-h264,profile=constrained-baseline"
    )


def _v4l2(s: EncoderSettings) -> str:
    return (
        "v4l2h264enc name=encoder extra-controls=controls,repeat_sequence_header=1,"
        f"video_bitrate={s.bitrate_kbps * 1000},h264_i_frame_period={s.gop_frames}"
        " ! video/x-h264,profile=constrained-baseline,level=(string)4"
    )


def _nvidia(s: EncoderSettings) -> str:
    return (
        "nvvidconv ! video/x-raw(memory:NVMM),format=I420 ! "
        f"nvv4l2h264enc name=encoder bitrate={s.bitrate_kbps * 1000} iframeinterval={s.gop_frames} "
        f"idrinterval={s.gop_frames} insert-sps-pps=true maxperf-enable=true preset-level=1"
        " ! video/x-h264,profile=constrained-baseline"
    )


RANKED: tuple[Encoder, ...] = (
    Encoder("nvv4l2h264enc", True, "nvidia-l4t-gstreamer", _nvidia),
    Encoder("v4l2h264enc", True, "gstreamer1.0-plugins-good", _v4l2),
    Encoder("x264enc", False, "gstreamer1.0-plugins-ugly", _x264),
    Encoder("openh264enc", False, "gstreamer1.0-plugins-bad", _openh264),
)
"""Hardware first: it leaves the CPU to the model."""


def works(encoder: Encoder) -> str | None:
    """Encodes one small picture. Returns None when that worked, else why not. One trial at a time: an encoder in
    hardware may bear no more."""
    with _trying:
        return _try(encoder)


_trying = threading.Lock()


def _try(encoder: Encoder) -> str | None:
    gst, glib = gstreamer.load("GLib")
    if gst.ElementFactory.find(encoder.element) is None:
        return f"no element {encoder.element} (package {encoder.package})"
    settings = EncoderSettings(bitrate_kbps=500, gop_frames=30, threads=1)
    try:
        pipeline = gst.parse_launch(
            "videotestsrc num-buffers=1 ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! "
            f"{encoder.launch(settings)} ! fakesink"
        )
    except glib.Error as error:
        return str(error.message)
    try:
        pipeline.set_state(gst.State.PLAYING)
        message = pipeline.get_bus().timed_pop_filtered(
            int(TRIAL_TIMEOUT_S * gst.SECOND), gst.MessageType.EOS | gst.MessageType.ERROR
        )
        if message is None:
            return f"encoded nothing within {TRIAL_TIMEOUT_S:g} s"
        if message.type == gst.MessageType.ERROR:
            return str(message.parse_error()[0].message)
        return None
    finally:
        pipeline.set_state(gst.State.NULL)


def choose(candidates: Iterable[Encoder] = RANKED, wanted: str = "auto") -> Encoder:
    """The first encoder in rank order that passes a real trial, or the one that is wanted by name.

    Raises SinkError, with what was wrong with each.
    """
    refused = []
    for encoder in candidates:
        if wanted not in ("auto", encoder.element):
            continue
        problem = works(encoder)
        if problem is None:
            log.info(
                "encoding H.264 with %s (%s)", encoder.element, "hardware" if encoder.hardware else "software"
            )
            return encoder
        refused.append(f"{encoder.element}: {problem}")
    raise SinkError(
        f"no H.264 encoder works here ({'; '.join(refused) or f'{wanted} is not one we know'}): "
        "run `sudo apt install gstreamer1.0-plugins-ugly` for x264enc",
        permanent=True,
    )
