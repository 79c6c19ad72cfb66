from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_seg import gstreamer
from edge_seg.errors import SourceLost
from edge_seg.sources import RtspSourceSettings, open_source, timecode
from edge_seg.sources.rtsp import explain
from tests.faults.rtsp_server import RtspServer

pytest.importorskip("gi")
SECOND_NS = 1_000_000_000
SECRET = "s3cr3t-w0rd"


@pytest.fixture(scope="module")
def server() -> Iterator[RtspServer]:
    with RtspServer(user="viewer", password=SECRET) as server:
        yield server


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_come_in_order_soon_after_they_were_sent(
    server: RtspServer, tmp_path: Path, transport: str
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    source = open_source(
        RtspSourceSettings(
            url=server.url,
            transport=transport,  # type: ignore[arg-type]
            user="viewer",
            password_file=str(tmp_path / "secret"),
        )
    )
    seqs, ages_ms = [], []
    for _ in range(40):
        frame = source.read(5 * SECOND_NS)
        assert frame is not None
        code = timecode.read_code(frame.picture.y)
        if code is None:
            continue  # a packet of it was lost
        seqs.append(code.seq)
        ages_ms.append((frame.captured_ns - code.captured_ns) / 1e6)
    source.close()
    assert (frame.picture.width, frame.picture.height) == (640, 360)
    # A busy machine may miss some: a network camera's frames are worth nothing when they are old.
    assert seqs == sorted(set(seqs))
    assert len(seqs) >= 20
    assert seqs[-1] - seqs[0] < 100
    assert min(ages_ms) > 0, "captured before it was drawn"


def test_a_wrong_password_is_said_and_never_printed(
    server: RtspServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CAMERA_PASSWORD", "wr0ng-w0rd")
    settings = RtspSourceSettings(url=server.url, user="viewer", password_env="CAMERA_PASSWORD")
    with pytest.raises(SourceLost, match="refuses this user or password") as caught:
        open_source(settings)
    assert "wr0ng-w0rd" not in f"{caught.value} {caplog.text} {settings}"


def test_a_path_that_is_not_served_is_said(server: RtspServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", SECRET)
    url = server.url.replace("/live", "/other")
    with pytest.raises(SourceLost, match="knows no stream under this path"):
        open_source(RtspSourceSettings(url=url, user="viewer", password_env="CAMERA_PASSWORD"))


def test_nobody_there_is_said_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(SourceLost, match=r"rtsp://127\.0\.0\.1:1/live: "):
        open_source(RtspSourceSettings(url="rtsp://127.0.0.1:1/live"))
    assert time.monotonic() - started < 9, "it waited for the time-out of a silent host"


def test_an_error_is_one_line_with_the_reason_at_its_end() -> None:
    debug = (
        "gstrtspsrc.c(8093): gst_rtspsrc_retrieve_sdp (): /GstPipeline:p/GstRTSPSrc:c:\nFailed to connect."
    )
    assert explain("Could not open resource for reading and writing.", debug) == (
        "Could not open resource for reading and writing (Failed to connect)"
    )


def test_only_pictures_are_asked_for() -> None:
    gst = gstreamer.load()
    from edge_seg.sources.rtsp import RtspSource

    source = RtspSource(RtspSourceSettings(url="rtsp://camera/live"))
    media = [gst.Caps.from_string(f"application/x-rtp,media={kind}") for kind in ("audio", "video", "video")]
    assert [source._select(None, number, caps) for number, caps in enumerate(media)] == [False, True, False]
