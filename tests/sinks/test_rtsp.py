"""The RTSP sink against real clients and real ports."""

import re
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from edge_seg import encoders
from edge_seg.encoders import EncoderSettings
from edge_seg.errors import SinkError
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.rtsp import MulticastSettings, RtspSettings, RtspSink
from edge_seg.types import I420, Matrix
from tests.e2e.daemon import watch
from tests.rtsp_client import RtspClient
from tests.sinks.producer import OUTPUT, Producer

IDR = 5
"""Type of the NAL units of a key frame."""


@pytest.fixture
def sink() -> Iterator[RtspSink]:
    sink = RtspSink(RtspSettings(port=0))
    sink.open(OUTPUT)
    yield sink
    sink.close()


def test_colours_matrix_and_range_arrive_as_they_were_sent(sink: RtspSink) -> None:
    with Producer(sink):
        viewer = watch(sink.url)
        frames = viewer.decode(video=0)
        for _ in range(10):
            frame = next(frames)
        viewer.close()
    y, u, v = (np.frombuffer(plane, np.uint8) for plane in frame.planes)
    assert abs(int(np.median(y)) - 100) <= 2
    assert abs(int(np.median(u)) - 90) <= 2
    assert abs(int(np.median(v)) - 170) <= 2
    assert (frame.colorspace, frame.color_range) == (1, 1)  # FFmpeg's BT.709 and limited


def test_nothing_is_encoded_while_nobody_watches(sink: RtspSink) -> None:
    with Producer(sink):
        assert not sink.wants_pictures
        viewer = watch(sink.url)
        next(viewer.decode(video=0))
        assert sink.wants_pictures
        viewer.close()
        for _ in range(200):
            if not sink.wants_pictures:
                break
            time.sleep(0.05)
        assert not sink.wants_pictures


def test_a_push_never_blocks_even_when_frames_come_much_faster_than_they_are_encoded(sink: RtspSink) -> None:
    with Producer(sink) as producer:
        viewer = watch(sink.url)
        next(viewer.decode(video=0))
        started = time.monotonic()
        for _ in range(500):
            sink.push(producer.picture, time.monotonic_ns())
        assert time.monotonic() - started < 10
        viewer.close()


def test_viewers_stay_when_the_picture_changes_its_size(sink: RtspSink) -> None:
    with Producer(sink) as producer:
        viewer = watch(sink.url)
        frames = viewer.decode(video=0)
        next(frames)
        larger = OutputFormat(640, 360, Fraction(30), Matrix.BT709)
        sink.reformat(larger)
        producer.picture = I420.filled(larger.width, larger.height, (100, 90, 170))
        sizes = {(frame.width, frame.height) for frame, _ in zip(frames, range(60), strict=False)}
        assert (640, 360) in sizes
        viewer.close()


def test_a_busy_port_and_a_foreign_address_are_refused_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SinkError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            RtspSink(RtspSettings(port=port)).open(OUTPUT)
    with pytest.raises(SinkError, match="no interface has that address"):
        RtspSink(RtspSettings(address="192.0.2.1", port=0)).open(OUTPUT)


def test_close_frees_the_port_and_may_be_repeated() -> None:
    sink = RtspSink(RtspSettings(port=0))
    sink.open(OUTPUT)
    port = int(sink.url.rsplit(":", 1)[1].split("/")[0])
    sink.close()
    sink.close()
    again = RtspSink(RtspSettings(port=port))
    again.open(OUTPUT)
    again.close()


def test_the_description_says_how_the_stream_is_encoded_and_reports_say_what_time_it_is(
    sink: RtspSink,
) -> None:
    with Producer(sink), RtspClient(sink.url) as viewer:
        sdp = viewer.play()
        # profile-level-id: constrained baseline (RFC 6184, 8.1); the parameter sets are there before the first packet.
        assert re.search(r"profile-level-id=42[cC]0[0-9a-fA-F]{2}", sdp), sdp
        assert re.search(r"sprop-parameter-sets=[\w+/=]+,[\w+/=]+", sdp), sdp
        rtp_times, deadline = [], time.monotonic() + 15
        while time.monotonic() < deadline:
            channel, packet = viewer.packet()
            if channel == 0:
                rtp_times.append(struct.unpack(">I", packet[4:8])[0])
            elif packet[1] == 200:  # sender report (RFC 3550, 6.4.1)
                seconds, _, rtp_time = struct.unpack(">III", packet[8:20])
                break
    assert abs(seconds - 2_208_988_800 - time.time()) < 60
    assert min(abs(rtp_time - one) for one in rtp_times) < 90_000


def test_a_key_frame_comes_at_once_for_who_joins(sink: RtspSink) -> None:
    with Producer(sink), RtspClient(sink.url) as first:
        first.play()
        for _ in range(10):
            first.packet()
        with RtspClient(sink.url) as second:
            second.play()
            packets = 0
            while (packet := second.packet())[0] != 0 or IDR not in nal_units(packet[1][12:]):
                packets += 1
                assert packets < 40  # the gop is 60 pictures


def test_a_key_frame_comes_when_a_viewer_reports_a_lost_picture(sink: RtspSink) -> None:
    with Producer(sink), RtspClient(sink.url) as viewer:
        viewer.play()
        packets, asked_at = 0, 30
        while True:
            channel, packet = viewer.packet()
            if channel != 0:
                continue
            packets += 1
            if packets > asked_at and IDR in nal_units(packet[12:]):
                break
            assert packets < asked_at + 25  # the gop is 60 pictures
            if packets == asked_at:
                # An empty receiver report and a picture loss indication (RFC 3550, 6.4.2; RFC 4585, 6.3.1).
                (ssrc,) = struct.unpack_from(">I", packet, 8)
                report = struct.pack(">BBHI", 0x80, 201, 1, 1) + struct.pack(">BBHII", 0x81, 206, 2, 1, ssrc)
                viewer.socket.sendall(b"$\x01" + struct.pack(">H", len(report)) + report)


def nal_units(payload: bytes) -> set[int]:
    """The types of the NAL units in an RTP payload (RFC 6184, 5.4)."""
    kind = payload[0] & 31
    if kind == 28:  # FU-A
        return {payload[1] & 31}
    if kind != 24:
        return {kind}
    found, at = set(), 1  # STAP-A
    while at < len(payload):
        (size,) = struct.unpack_from(">H", payload, at)
        found.add(payload[at + 2] & 31)
        at += 2 + size
    return found


def test_time_that_goes_backwards_does_not_end_the_server(sink: RtspSink) -> None:
    with RtspClient(sink.url, receive_buffer=4096) as stalled:
        with Producer(sink):
            stalled.play()
        picture = I420.filled(OUTPUT.width, OUTPUT.height, (100, 90, 170))
        now_ns = time.monotonic_ns()
        for number in range(200):
            sink.push(picture, now_ns - (number % 3) * 10_000_000)
        with Producer(sink):
            viewer = watch(sink.url)
            next(viewer.decode(video=0))
            viewer.close()


def test_an_encoder_that_fails_at_work_is_replaced_with_one_line_and_viewers_who_come_back_see_pictures(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def launch(settings: EncoderSettings) -> str:
        return f"{x264.launch(settings)} ! identity error-after=20"

    x264 = next(one for one in encoders.RANKED if one.element == "x264enc")
    flaky = encoders.Encoder("identity", True, "nowhere", launch)
    monkeypatch.setattr(encoders, "_failed", {})
    monkeypatch.setattr(encoders.choose, "__defaults__", ((flaky, x264), *encoders.choose.__defaults__[1:]))
    sink = RtspSink(RtspSettings(port=0))
    sink.open(OUTPUT)
    try:
        with Producer(sink):
            with RtspClient(sink.url) as viewer:
                viewer.play()
                assert sink.encoder == "identity"
                assert viewer.is_closed_within(10)
            again = watch(sink.url)
            for _, _ in zip(range(40), again.decode(video=0), strict=False):
                pass
            assert sink.encoder == "x264enc"
            again.close()
    finally:
        sink.close()
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert lines[0].startswith(
        "identity failed (Failed after iterations as requested.): encoding with another"
    )


def test_bit_rate_and_limits_change_without_anybody_noticing_and_the_rest_does_not(sink: RtspSink) -> None:
    before = RtspSettings(port=0)
    with Producer(sink), RtspClient(sink.url) as viewer:
        assert sink.adjust(replace(before, max_viewers=3))
        viewer.play()
        viewer.packet()
        assert sink.adjust(replace(before, bitrate_kbps=350))
        assert sink.viewers == 1
        for _ in range(30):
            viewer.packet()
        for other in (
            replace(before, path="/other"),
            replace(before, gop_s=1.0),
            replace(before, codec="h265"),
        ):
            assert not sink.adjust(other)


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_both_codecs_reach_a_viewer(codec: encoders.Codec) -> None:
    sink = RtspSink(RtspSettings(port=0, codec=codec, gop_s=0.5))
    sink.open(OUTPUT)
    try:
        with Producer(sink):
            viewer = watch(sink.url)
            frame = next(viewer.decode(video=0))
            assert viewer.streams.video[0].codec_context.name == {"h264": "h264", "h265": "hevc"}[codec]
            assert abs(int(np.median(np.frombuffer(frame.planes[0], np.uint8))) - 100) <= 2
            viewer.close()
    finally:
        sink.close()


def test_a_viewer_gets_the_transport_that_is_allowed() -> None:
    sink = RtspSink(
        RtspSettings(port=0, transports=("tcp",), multicast=MulticastSettings("239.255.77.77", 45678))
    )
    sink.open(OUTPUT)
    try:
        with Producer(sink), RtspClient(sink.url) as viewer:
            assert viewer.ask("DESCRIBE")[0] == 200
            assert viewer.setup("RTP/AVP;unicast;client_port=45000-45001") == 461
            status, headers, _ = viewer.ask("SETUP", f"{viewer.url}/stream=0", Transport="RTP/AVP;multicast")
            assert status == 200
            assert "destination=239.255.77.77" in headers["transport"]
            assert "port=45678-45679" in headers["transport"]
    finally:
        sink.close()
