"""What is done with a track of sound: copied as it is where the container takes it, else encoded as AAC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import EdgeSegError

PARSERS = {
    "audio/mpeg": "aacparse",
    "audio/x-ac3": "ac3parse",
    "audio/x-eac3": "ac3parse",
    "audio/x-flac": "flacparse",
    "audio/x-opus": "opusparse",
    "audio/x-dts": "dcaparse",
}
"""Elements that bring a track into the framing that the muxer wants."""
_NAMES = {
    "audio/mpeg": "AAC",
    "audio/x-ac3": "AC-3",
    "audio/x-eac3": "E-AC-3",
    "audio/x-alac": "ALAC",
    "audio/x-flac": "FLAC",
    "audio/x-opus": "Opus",
    "audio/x-vorbis": "Vorbis",
    "audio/x-raw": "PCM",
}
AAC_ENCODERS = ("fdkaacenc bitrate=160000", "avenc_aac bitrate=160000", "voaacenc bitrate=160000")
_FRAMING = ("stream-format", "alignment", "framed", "parsed")
# So much may be read ahead of the other tracks, in files that keep them far apart.
_QUEUE = "queue max-size-buffers=0 max-size-time=0 max-size-bytes=16777216"


@dataclass(frozen=True, slots=True)
class Track:
    """How a track gets from the recording into the new file."""

    launch: str
    """What stands between the two, as text for GStreamer."""
    what: str
    """For people: "AAC, copied"."""


def plan(caps: Any, mux: Any) -> Track | None:
    """What to do with a track of these caps; None when it is none of sound. Raises EdgeSegError."""
    structure = caps.get_structure(0)
    kind = structure.get_name()
    if not kind.startswith("audio/"):
        return None
    is_mp3 = kind == "audio/mpeg" and structure.get_int("mpegversion") == (True, 1)
    name = "MP3" if is_mp3 else _NAMES.get(kind, kind.removeprefix("audio/").removeprefix("x-"))
    if takes(mux, caps):
        parser = "mpegaudioparse" if is_mp3 else PARSERS.get(kind)
        return Track(f"{parser} ! {_QUEUE}" if parser else _QUEUE, f"{name}, copied")
    gst = gstreamer.load()
    encoder = next((text for text in AAC_ENCODERS if gst.ElementFactory.find(text.split()[0])), None)
    if encoder is None:
        raise EdgeSegError(
            f"the sound is {name}, which this kind of file cannot hold, and there is no AAC encoder: run "
            "`sudo apt install gstreamer1.0-libav`, or write to .mkv"
        )
    return Track(
        f"{_QUEUE} ! {_decoder(caps, name)}audioconvert ! audioresample ! {encoder} ! aacparse ! {_QUEUE}",
        f"{name}, encoded anew as AAC",
    )


def _decoder(caps: Any, name: str) -> str:
    """Launch text of what decodes this sound; none for what is not encoded."""
    gst = gstreamer.load()
    if caps.get_structure(0).get_name() == "audio/x-raw":
        return ""
    kinds = gst.ELEMENT_FACTORY_TYPE_DECODER | gst.ELEMENT_FACTORY_TYPE_MEDIA_AUDIO
    found = gst.ElementFactory.list_get_elements(kinds, gst.Rank.MARGINAL)
    able = gst.ElementFactory.list_filter(found, caps, gst.PadDirection.SINK, False)
    if not able:
        raise EdgeSegError(
            f"the sound is {name}, which this kind of file cannot hold, and there is no decoder for it: run "
            "`sudo apt install gstreamer1.0-libav`, or write to .mkv"
        )
    return f"{max(able, key=lambda factory: factory.get_rank()).get_name()} ! "


def takes(mux: Any, caps: Any) -> bool:
    """Whether the muxer takes sound of these caps, framed in one way or another."""
    gst = gstreamer.load()
    structure = caps.get_structure(0).copy()
    for field in _FRAMING:
        structure.remove_field(field)
    bare = gst.Caps.new_empty()
    bare.append_structure(structure)
    return any(
        template.direction == gst.PadDirection.SINK
        and template.name_template.startswith("audio")
        and template.get_caps().can_intersect(bare)
        for template in mux.get_pad_template_list()
    )
