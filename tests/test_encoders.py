"""Encoders tried for real: what they make of a picture, when, and who is taken when one does not work."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from edge_seg import encoders, gstreamer
from edge_seg.encoders import Encoder, EncoderSettings, Encoding, choose, report_failure, works
from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat
from edge_seg.types import I420, Matrix


def test_hardware_ranks_before_software_and_each_names_its_element_encoder() -> None:
    kinds = [encoder.hardware for encoder in encoders.RANKED]
    assert kinds == sorted(kinds, reverse=True)
    for encoder in encoders.RANKED:
        launch = encoder.launch(EncoderSettings(bitrate_kbps=2000, gop_frames=60, threads=2))
        assert f"{encoder.element} name=encoder" in launch
        assert f"video/x-{encoder.codec}" in launch
        assert "profile=constrained-baseline" in launch or encoder.codec == "h265"


def test_the_keys_of_an_output_become_what_encoders_understand() -> None:
    wide = OutputFormat(1280, 720, Fraction(30), Matrix.BT709)
    assert Encoding().for_format(wide) == EncoderSettings(2212, 60, 2)
    assert Encoding(codec="h265").for_format(wide).bitrate_kbps == 1382
    assert Encoding().for_format(OutputFormat(64, 64, Fraction(1), Matrix.BT709)).bitrate_kbps == 300
    told = Encoding(bitrate_kbps=900, gop_s=0.5, threads=1, profile="high", intra_refresh=True)
    assert told.for_format(wide) == EncoderSettings(900, 15, 1, "high", True)


def encode(
    encoder: Encoder, settings: EncoderSettings, act: Callable[[int, Any], None] | None = None
) -> list[Any]:
    """Buffers of 60 encoded pictures of a moving pattern. `act(number, element)` is called before each picture."""
    gst, _ = gstreamer.load("GstApp")
    pipeline = gst.parse_launch(
        "appsrc name=source format=time caps=video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! "
        f"{encoder.launch(settings)} ! {encoder.parser} ! "
        f"video/x-{encoder.codec},stream-format=byte-stream,alignment=au ! appsink name=sink sync=false max-buffers=0"
    )
    source, sink = pipeline.get_by_name("source"), pipeline.get_by_name("sink")
    pipeline.set_state(gst.State.PLAYING)
    random = np.random.default_rng(1)
    texture = cv2.GaussianBlur(random.integers(0, 256, (240, 320), np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 50, 200, cv2.NORM_MINMAX)
    buffers = []
    for number in range(60):
        if act is not None:
            act(number, pipeline.get_by_name("encoder"))
        picture = I420.filled(320, 240, (100, 128, 128))
        picture.y[:] = np.roll(texture, 3 * number // 2, axis=1) + random.integers(
            0, 12, texture.shape, np.uint8
        )
        source.push_buffer(gstreamer.to_buffer(picture, number * gst.SECOND // 30))
        sample = sink.try_pull_sample(5 * gst.SECOND)
        assert sample is not None, "a picture was held back"
        buffers.append(sample.get_buffer())
    pipeline.set_state(gst.State.NULL)
    return buffers


SOFTWARE = [encoder for encoder in encoders.RANKED if not encoder.hardware]


@pytest.mark.parametrize("encoder", SOFTWARE, ids=lambda encoder: encoder.element)
def test_no_picture_is_held_back_and_key_frames_come_in_time(encoder: Encoder) -> None:
    gst = gstreamer.load()
    buffers = encode(encoder, EncoderSettings(bitrate_kbps=1000, gop_frames=20, threads=2))
    keys = [n for n, one in enumerate(buffers) if not one.has_flags(gst.BufferFlags.DELTA_UNIT)]
    assert keys[0] == 0
    assert 15 <= min(np.diff(keys)) <= max(np.diff(keys)) <= 20


@pytest.mark.parametrize("encoder", SOFTWARE, ids=lambda encoder: encoder.element)
def test_the_bit_rate_can_be_changed_while_it_runs(encoder: Encoder) -> None:
    def lower(number: int, element: Any) -> None:
        if number == 30:
            assert encoder.set_bitrate(element, 300)

    sizes = [one.get_size() for one in encode(encoder, EncoderSettings(2000, 600, 1), lower)]
    assert sum(sizes[45:]) < 0.7 * sum(sizes[15:30]), sizes


def test_with_intra_refresh_no_picture_is_a_burst() -> None:
    x264 = next(encoder for encoder in SOFTWARE if encoder.element == "x264enc")

    def burst(refresh: bool) -> float:
        sizes = [one.get_size() for one in encode(x264, EncoderSettings(1500, 20, 1, intra_refresh=refresh))]
        return max(sizes[10:]) / float(np.median(sizes[10:]))

    assert burst(True) < 0.5 * burst(False)


@pytest.mark.parametrize("profile", get_args(encoders.Profile))
def test_the_stream_has_the_profile_that_was_asked_for(profile: encoders.Profile) -> None:
    x264 = next(encoder for encoder in SOFTWARE if encoder.element == "x264enc")
    first = encode(x264, EncoderSettings(1000, 20, 1, profile))[0]
    data = first.extract_dup(0, first.get_size())
    sps = next(
        data[at + 3 :] for at in range(len(data)) if data[at : at + 3] == b"\0\0\1" and data[at + 3] & 31 == 7
    )
    # profile_idc and constraint_set1_flag of ITU-T H.264, 7.3.2.1.1.
    assert (sps[1], bool(sps[2] & 0x40)) == {
        "constrained-baseline": (66, True), "main": (77, True), "high": (100, False),
    }[profile]  # fmt: skip


def test_a_software_encoder_passes_its_trial_here() -> None:
    assert choose().element in {encoder.element for encoder in encoders.RANKED}
    x264 = next(encoder for encoder in encoders.RANKED if encoder.element == "x264enc")
    assert works(x264) is None


def test_what_is_not_there_and_what_does_not_work_is_passed_over() -> None:
    absent = Encoder("no264enc", True, "nowhere", lambda _: "no264enc")
    broken = Encoder("identity", True, "coreelements", lambda _: "identity error-after=1")
    good = next(encoder for encoder in encoders.RANKED if encoder.element == "x264enc")
    assert choose((absent, broken, good)) is good
    with pytest.raises(SinkError, match=r"no264enc: no element no264enc .*identity: Failed after") as caught:
        choose((absent, broken))
    assert caught.value.permanent


def test_what_failed_at_work_is_passed_over_from_then_on_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoders, "_failed", {})
    first, second = SOFTWARE[:2]
    assert choose(SOFTWARE) is first
    report_failure(first, "out of memory")
    report_failure(first, "out of memory")
    assert choose(SOFTWARE) is second
    assert choose(SOFTWARE, wanted=first.element) is first
    assert caplog.text.count("encoding with another encoder from now on") == 1
    with pytest.raises(SinkError, match=f"{first.element}: failed at work: out of memory"):
        choose([first])


def test_encoders_are_of_the_codec_that_is_asked_for() -> None:
    assert choose(SOFTWARE, codec="h265").element == "x265enc"
    with pytest.raises(
        SinkError, match=r"no H\.265 encoder works here \(x264enc is none of them\): set outputs.codec"
    ):
        choose(SOFTWARE, wanted="x264enc", codec="h265")


def test_an_encoder_that_is_asked_for_by_name_is_not_replaced() -> None:
    with pytest.raises(SinkError, match="v4l2h264enc: no element"):
        choose(wanted="v4l2h264enc")
