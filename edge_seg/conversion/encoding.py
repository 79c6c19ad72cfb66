"""How the pictures of a file are encoded: for their quality, since nobody waits for them."""

from __future__ import annotations

from dataclasses import replace

from edge_seg.encoders import RANKED, Encoder, EncoderSettings, Encoding
from edge_seg.sinks.base import OutputFormat

GENEROUS = 2
"""Encoders without constant quality get so many times the bits of a live stream."""
GOP_S = 5.0


def candidates(quality: int) -> list[Encoder]:
    """H.264 encoders, best first: software makes better pictures of the same size. `quality` is x264's quantiser."""

    def x264(settings: EncoderSettings) -> str:
        # No B-frames: mp4mux ends a track at its last decoding time, and where the rate varies that is too early.
        return (
            f"x264enc name=encoder pass=qual quantizer={quality} speed-preset=veryfast bframes=0 "
            f"key-int-max={settings.gop_frames} threads={settings.threads} ! video/x-h264,profile=high"
        )

    ranked = sorted((one for one in RANKED if one.codec == "h264"), key=lambda encoder: encoder.hardware)
    return [replace(one, launch=x264) if one.element == "x264enc" else one for one in ranked]


def settings(output: OutputFormat, threads: int) -> EncoderSettings:
    live = Encoding(gop_s=GOP_S, threads=threads, profile="high").for_format(output)
    return replace(live, bitrate_kbps=GENEROUS * live.bitrate_kbps)
