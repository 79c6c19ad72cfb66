"""Publishing to servers in other processes, which are killed, started again, cut off."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from edge_seg import encoders, secret
from edge_seg.errors import SinkError
from edge_seg.outputs import Outputs, OutputStatus, Patience
from edge_seg.sinks.base import OutputFormat
from edge_seg.sinks.push import PushSettings, PushSink, explain
from edge_seg.types import I420, Matrix
from tests.faults.media_server import MediaServer
from tests.faults.namespace import Namespace

gi = pytest.importorskip("gi")

FPS = 30
FORMAT = OutputFormat(320, 240, Fraction(FPS), Matrix.BT601)
SECRET = "s3cret-passphrase"


class Publisher:
    """One push output, fed at its rate by a thread."""

    def __init__(self, settings: PushSettings) -> None:
        self.outputs = Outputs([settings], Patience(first_retry_s=0.1, longest_retry_s=0.5, steady_s=0.3))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed)

    def _feed(self) -> None:
        self.outputs.reformat(FORMAT)
        for index in itertools.count():
            if self._stop.wait(1 / FPS):
                return
            picture = I420.filled(320, 240, (60 + index % 100, 128, 128), Matrix.BT601)
            self.outputs.push(picture, time.monotonic_ns())

    @property
    def status(self) -> OutputStatus:
        return self.outputs.status()[0]

    def wait_until(self, done: Callable[[], bool], timeout_s: float = 20) -> float:
        """How long it took, in seconds."""
        started = time.monotonic()
        while not done():
            assert time.monotonic() - started < timeout_s, self.status
            time.sleep(0.01)
        return time.monotonic() - started


@contextmanager
def publishing(settings: PushSettings) -> Iterator[Publisher]:
    publisher = Publisher(settings)
    publisher._thread.start()
    try:
        yield publisher
    finally:
        publisher._stop.set()
        publisher._thread.join()
        publisher.outputs.close()


@pytest.mark.parametrize(
    ("kind", "user", "password", "noticed_s"),
    [("rtsp", "camera", SECRET, 1.0), ("srt", "", SECRET, 8.0)],
)
def test_a_server_that_is_killed_is_noticed_and_published_to_again(
    kind: str, user: str, password: str, noticed_s: float, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("PUSH_PASSWORD", password)
    caplog.set_level("INFO")
    with MediaServer(kind, user, password) as server:
        settings = PushSettings(url=server.url, user=user, password_env="PUSH_PASSWORD", latency_ms=20)
        with publishing(settings) as publisher:
            assert server.wait_for_frames(20)
            first = [luma for _, luma in server.frames]
            assert max(first) - min(first) > 5  # pictures that change, not one again and again
            server.kill()
            noticed = publisher.wait_until(lambda: publisher.status.state == "retrying")
            assert noticed < noticed_s
            server.start()
            started = time.monotonic()
            assert server.wait_for_frames(20)
            print(
                f"{kind}: noticed after {noticed:.2f} s, back {time.monotonic() - started:.2f} s after its start"
            )
            publisher.wait_until(lambda: publisher.status.state == "running")
    assert publisher.status.restarts >= 1
    assert SECRET not in caplog.text


def test_a_frozen_server_is_noticed_although_its_system_goes_on_confirming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pictures of noise, so that there is enough to confirm."""
    noise = np.random.default_rng(1).integers(40, 200, (240, 320), np.uint8)
    filled = I420.filled

    def noisy(width: int, height: int, yuv: tuple[int, int, int], matrix: Matrix) -> I420:
        picture = filled(width, height, yuv, matrix)
        picture.y[:] = np.roll(noise, yuv[0], axis=1)
        return picture

    monkeypatch.setattr(I420, "filled", noisy)
    with MediaServer("rtsp") as server, publishing(PushSettings(url=server.url)) as publisher:
        assert server.wait_for_frames(20)
        server.send(signal.SIGSTOP)
        noticed = publisher.wait_until(lambda: publisher.status.state == "retrying")
        print(f"frozen: noticed after {noticed:.2f} s")
        assert noticed < 6
        assert "read nothing for 3 s" in str(publisher.status.cause)
        server.send(signal.SIGCONT)
        frames = publisher.status.frames
        publisher.wait_until(lambda: publisher.status.frames > frames + 20)


def test_a_network_that_swallows_everything_is_noticed_within_seconds() -> None:
    if (problem := Namespace.problem()) is not None:
        pytest.skip(problem)
    with (
        Namespace() as namespace,
        MediaServer("rtsp", namespace=namespace) as server,
        publishing(PushSettings(url=server.url)) as publisher,
    ):
        assert server.wait_for_frames(20)
        publisher.wait_until(lambda: publisher.status.frames > 40)
        namespace.cut()
        noticed = publisher.wait_until(lambda: publisher.status.state == "retrying")
        assert noticed < 6
        namespace.mend()
        assert server.wait_for_frames(20)
        print(f"cut off: noticed after {noticed:.2f} s")


def test_rtmp_is_published_with_the_stream_key_of_a_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("live-key\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    got: list[int] = []

    def listen() -> None:
        with av.open(
            f"rtmp://127.0.0.1:{port}/live/live-key",
            timeout=20,
            options={"listen": "1", "timeout": "20", "analyzeduration": "500000"},
        ) as container:
            for frame in container.decode(video=0):
                got.append(int(np.mean(frame.to_ndarray(format="yuv420p")[:240])))
                if len(got) == 20:
                    return

    thread = threading.Thread(target=listen)
    thread.start()
    settings = PushSettings(url=f"rtmp://127.0.0.1:{port}/live", password_file=str(key))
    with publishing(settings):
        thread.join(25)
    assert len(got) == 20
    assert max(got) - min(got) > 5


def test_who_is_refused_is_told_so_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSH_PASSWORD", "another-secret")
    with MediaServer("rtsp", "camera", SECRET) as server:
        settings = PushSettings(url=server.url, user="camera", password_env="PUSH_PASSWORD")
        with publishing(settings) as publisher:
            publisher.wait_until(
                lambda: publisher.status.state == "retrying" and bool(publisher.status.cause)
            )
            assert "refuses this user or password" in str(publisher.status.cause)
            assert "another-secret" not in str(publisher.status.cause)


def test_mistakes_are_permanent_and_a_server_that_is_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUSH_PASSWORD", raising=False)
    missing = PushSink(PushSettings(url="rtsp://127.0.0.1/camera", user="me", password_env="PUSH_PASSWORD"))
    with pytest.raises(SinkError, match="no environment variable PUSH_PASSWORD") as caught:
        missing.open(FORMAT)
    assert caught.value.permanent
    monkeypatch.setenv("PUSH_PASSWORD", "short")
    short = PushSink(PushSettings(url="srt://127.0.0.1:9", password_env="PUSH_PASSWORD"))
    with pytest.raises(SinkError, match="10 to 79 characters"):
        short.open(FORMAT)
    nowhere = PushSink(PushSettings(url="rtsp://no-such-host.invalid/camera"))
    with pytest.raises(SinkError, match="no-such-host") as caught:
        nowhere.open(FORMAT)
    assert not caught.value.permanent


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("rtsps://h/a", "h264parse config-interval=-1 ! rtspclientsink name=server"),
        (
            "srt://h:1",
            "h264parse config-interval=-1 ! mpegtsmux alignment=7 ! srtsink name=server sync=false",
        ),
        ("rtmps://h/a", "h264parse ! flvmux streamable=true ! rtmp2sink name=server sync=false"),
    ],
)
def test_the_scheme_decides_what_the_pictures_are_packed_in(url: str, text: str) -> None:
    x264 = next(one for one in encoders.RANKED if one.element == "x264enc")
    assert PushSink(PushSettings(url=url))._behind(x264) == text


def test_what_is_logged_holds_no_secret() -> None:
    assert secret.public_url("srt://host:1?streamid=secret") == "srt://host:1?..."
    assert secret.public_url("rtmp://host/live") == "rtmp://host/live"


def test_an_error_is_one_line_that_says_what_is_wrong() -> None:
    said = explain("Could not write.", "../a.c(12): f (): /P/S:server:\nConnection reset by peer")
    assert said == "Could not write (Connection reset by peer)"
    assert (
        explain("Could not write.", "../a.c(12): f (): /GstPipeline:p/GstSRTSink:server") == "Could not write"
    )
    assert "refuses this user" in explain("Failed", "x\nUnauthorized (401)")
