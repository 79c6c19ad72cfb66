"""The video encoders of this device: which there are, which of them work, and how each is told the same thing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le

from edge_seg import gstreamer
from edge_seg.errors import SinkError

if TYPE_CHECKING:  # the outputs import this module
    from edge_seg.sinks.base import OutputFormat

log = logging.getLogger(__name__)

TRIAL_TIMEOUT_S = 5.0

BITS_PER_PIXEL = {"h264": 0.08, "h265": 0.05}
"""For the default bit rate: 2.2 Mbit/s of H.264 at 1280x720 and 30 frames a second."""

Codec = Literal["h264", "h265"]
Profile = Literal["constrained-baseline", "main", "high"]


@dataclass(frozen=True)
class Encoding:
    """How an output is encoded. The settings of outputs that encode inherit these keys."""

    codec: Codec = "h264"
    """h265 saves a third of the bits, where the device encodes it in hardware and the viewers can decode it."""
    encoder: Literal[
        "auto",
        "nvv4l2h264enc",
        "v4l2h264enc",
        "x264enc",
        "openh264enc",
        "nvv4l2h265enc",
        "v4l2h265enc",
        "x265enc",
    ] = "auto"
    """auto: the first that works, hardware before software. One that is named is not replaced."""
    bitrate_kbps: Annotated[int, Ge(0), Le(100_000)] = 0
    """0 derives it from the picture's size and rate."""
    gop_s: Annotated[float, Ge(0.1), Le(60)] = 2.0
    """The longest time between two key frames."""
    profile: Profile = "constrained-baseline"
    """Of H.264. constrained-baseline plays everywhere and costs least; main and high save bits."""
    intra_refresh: bool = False
    """A column of fresh blocks wanders through the pictures instead of key frames: no bursts on a narrow network, but
    who joins sees a whole picture only after a gop. Where the encoder can (x264enc, nvv4l2h264enc)."""
    threads: Annotated[int, Ge(1), Le(16)] = 2
    """Threads of a software encoder."""

    def for_format(self, output: OutputFormat) -> EncoderSettings:
        """What an encoder is to be told for pictures of this format."""
        pixels_per_s = output.width * output.height * float(output.fps)
        derived = max(300, round(pixels_per_s * BITS_PER_PIXEL[self.codec] / 1000))
        return EncoderSettings(
            bitrate_kbps=self.bitrate_kbps or derived,
            gop_frames=max(1, round(self.gop_s * output.fps)),
            threads=self.threads,
            profile=self.profile,
            intra_refresh=self.intra_refresh,
        )


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """What an encoder is asked for, whichever it is."""

    bitrate_kbps: int
    gop_frames: int
    """At most this many frames from one key frame to the next; viewers who join get one at once."""
    threads: int
    profile: Profile = "constrained-baseline"
    intra_refresh: bool = False


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder element: raw I420 in system memory in, a stream of `codec` out, no frame held back."""

    element: str
    hardware: bool
    package: str
    launch: Callable[[EncoderSettings], str]
    """The settings -> launch text whose encoder element is named `encoder`."""
    codec: Codec = "h264"
    bitrate_unit: int | None = None
    """Bits per second in one of its property `bitrate`; None where that cannot be changed while it runs."""

    @property
    def parser(self) -> str:
        """The element that parses its stream."""
        return f"{self.codec}parse"

    @property
    def payloader(self) -> str:
        """The element that makes RTP packets of its stream."""
        return f"rtp{self.codec}pay"

    def set_bitrate(self, element: Any, kbps: int) -> bool:
        """Changes the bit rate of the running encoder `element`. Returns whether it can."""
        if self.bitrate_unit is None:
            return False
        element.set_property("bitrate", kbps * 1000 // self.bitrate_unit)
        return True


def _x264(s: EncoderSettings) -> str:
    # ultrafast has neither CABAC nor 8x8 transforms: a higher profile would gain nothing by it.
    preset = "ultrafast" if s.profile == "constrained-baseline" else "superfast"
    refresh = " intra-refresh=true" if s.intra_refresh else ""
    return (
        f"x264enc name=encoder tune=zerolatency speed-preset={preset} bitrate={s.bitrate_kbps} "
        f"key-int-max={s.gop_frames} threads={s.threads} vbv-buf-capacity=500{refresh}"
        f" ! video/x-h264,profile={s.profile}"
    )


def _openh264(s: EncoderSettings) -> str:
    # It makes baseline streams only.
    return (
        f"openh264enc name=encoder complexity=low rate-control=bitrate bitrate={s.bitrate_kbps * 1000} "
        f"gop-size={s.gop_frames} multi-thread={s.threads} enable-frame-skip=false"
        " ! video/x-h264,profile=constrained-baseline"
    )


def _x265(s: EncoderSettings) -> str:
    return (
        f"x265enc name=encoder tune=zerolatency speed-preset=ultrafast bitrate={s.bitrate_kbps} "
        f"key-int-max={s.gop_frames} option-string=pools={s.threads}:log-level=none ! video/x-h265,profile=main"
    )


def _v4l2(s: EncoderSettings) -> str:
    return (
        "v4l2h264enc name=encoder extra-controls=controls,repeat_sequence_header=1,"
        f"video_bitrate={s.bitrate_kbps * 1000},h264_i_frame_period={s.gop_frames}"
        f" ! video/x-h264,profile={s.profile},level=(string)4"
    )


def _v4l2_h265(s: EncoderSettings) -> str:
    return (
        "v4l2h265enc name=encoder extra-controls=controls,repeat_sequence_header=1,"
        f"video_bitrate={s.bitrate_kbps * 1000},video_gop_size={s.gop_frames} ! video/x-h265,profile=main"
    )


def _nvidia(s: EncoderSettings) -> str:
    refresh = f" SliceIntraRefreshInterval={s.gop_frames}" if s.intra_refresh else ""
    return (
        "nvvidconv ! video/x-raw(memory:NVMM),format=I420 ! "
        f"nvv4l2h264enc name=encoder bitrate={s.bitrate_kbps * 1000} iframeinterval={s.gop_frames} "
        f"idrinterval={s.gop_frames} insert-sps-pps=true maxperf-enable=true preset-level=1{refresh}"
        f" ! video/x-h264,profile={s.profile}"
    )


def _nvidia_h265(s: EncoderSettings) -> str:
    return (
        "nvvidconv ! video/x-raw(memory:NVMM),format=I420 ! "
        f"nvv4l2h265enc name=encoder bitrate={s.bitrate_kbps * 1000} iframeinterval={s.gop_frames} "
        f"idrinterval={s.gop_frames} insert-sps-pps=true maxperf-enable=true preset-level=1"
        " ! video/x-h265,profile=main"
    )


RANKED: tuple[Encoder, ...] = (
    Encoder("nvv4l2h264enc", True, "nvidia-l4t-gstreamer", _nvidia, bitrate_unit=1),
    Encoder("v4l2h264enc", True, "gstreamer1.0-plugins-good", _v4l2),
    Encoder("nvv4l2h265enc", True, "nvidia-l4t-gstreamer", _nvidia_h265, "h265", bitrate_unit=1),
    Encoder("v4l2h265enc", True, "gstreamer1.0-plugins-good", _v4l2_h265, "h265"),
    Encoder("x264enc", False, "gstreamer1.0-plugins-ugly", _x264, bitrate_unit=1000),
    Encoder("openh264enc", False, "gstreamer1.0-plugins-bad", _openh264, bitrate_unit=1),
    Encoder("x265enc", False, "gstreamer1.0-plugins-bad", _x265, "h265", bitrate_unit=1000),
)
"""Hardware first: it leaves the CPU to the model."""

_failed: dict[str, str] = {}
"""Elements that passed their trial and failed at work, and how."""
_announced: set[str] = set()
_trying = threading.Lock()


def works(encoder: Encoder, size: tuple[int, int] = (320, 240)) -> str | None:
    """Encodes one picture of `size` (width, height). Returns None when that worked, else why not.

    One trial at a time: an encoder in hardware may bear no more.
    """
    with _trying:
        return _try(encoder, size)


def _try(encoder: Encoder, size: tuple[int, int]) -> str | None:
    gst, glib = gstreamer.load("GLib")
    if gst.ElementFactory.find(encoder.element) is None:
        return f"no element {encoder.element} (package {encoder.package})"
    settings = EncoderSettings(bitrate_kbps=500, gop_frames=30, threads=1)
    try:
        pipeline = gst.parse_launch(
            f"videotestsrc num-buffers=1 ! video/x-raw,format=I420,width={size[0]},height={size[1]},framerate=30/1 ! "
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


def choose(
    candidates: Iterable[Encoder] = RANKED,
    wanted: str = "auto",
    codec: Codec = "h264",
    size: tuple[int, int] = (320, 240),
) -> Encoder:
    """The first encoder of `codec` in rank order that passes a real trial at `size` (width, height) and has not failed
    at work, or the one that is wanted by name.

    Raises SinkError (permanent), with what was wrong with each.
    """
    refused = []
    for encoder in candidates:
        if encoder.codec != codec or wanted not in ("auto", encoder.element):
            continue
        problem = _failed.get(encoder.element) if wanted == "auto" else None
        problem = problem or works(encoder, size)
        if problem is None:
            kind = "hardware" if encoder.hardware else "software"
            # Once: an output that is lost chooses again with every try to be back.
            log.log(
                logging.DEBUG if encoder.element in _announced else logging.INFO,
                "encoding %s with %s (%s)", _NAMES[codec], encoder.element, kind,
            )  # fmt: skip
            _announced.add(encoder.element)
            return encoder
        refused.append(f"{encoder.element}: {problem}")
    raise SinkError(
        f"no {_NAMES[codec]} encoder works here "
        f"({'; '.join(refused) or f'{wanted} is none of them'}): {_HELP[codec]}",
        permanent=True,
    )


_NAMES = {"h264": "H.264", "h265": "H.265"}
_HELP = {
    "h264": "run `sudo apt install gstreamer1.0-plugins-ugly` for x264enc",
    "h265": "set outputs.codec to h264, or run `sudo apt install gstreamer1.0-plugins-bad` for x265enc",
}


def report_failure(encoder: Encoder, why: str) -> None:
    """The encoder failed at work: `choose` takes another from now on, until the daemon is started anew."""
    if encoder.element not in _failed:
        _failed[encoder.element] = f"failed at work: {why}"
        log.warning("%s failed (%s): encoding with another encoder from now on", encoder.element, why)
