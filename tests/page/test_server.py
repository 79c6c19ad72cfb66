"""The server by real HTTP: who gets what, and what it costs to ask."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.backgrounds import BackgroundSettings
from edge_seg.errors import ConfigError, SourceLost
from edge_seg.page import preview, server
from edge_seg.page.settings import WebSettings
from edge_seg.types import U8
from tests.page.running import RunningPage

TOKEN = "a-token-of-good-length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


def corner(jpeg: bytes) -> list[int]:
    """Blue, green and red of what is behind the person, top left."""
    picture: U8 = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    return [int(value) for value in np.median(picture[4:20, 4:20].reshape(-1, 3), axis=0)]


def near(found: list[int], expected: tuple[int, int, int]) -> bool:
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 12


def test_the_page_and_its_files_come_with_a_policy_that_allows_nothing_foreign() -> None:
    with RunningPage() as page:
        for path, kind in (
            ("/", "text/html"),
            ("/static/page.js", "text/javascript"),
            ("/static/page.css", "text/css"),
        ):
            answer = page.get(path)
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(kind)
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith(
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'"
            )
            assert "unsafe" not in policy
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            # It works offline: nothing refers to another server.
            foreign = answer.text.replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in foreign
            assert "https://" not in foreign
        for path in ("/static/../server.py", "/static/nothing.js", "/static/index.html", "/nothing"):
            assert page.get(path).status == 404


def test_health_is_200_while_frames_leave_and_says_why_when_not() -> None:
    class NoCamera:
        name = "no camera"
        live = True

        def open(self) -> None:
            raise SourceLost("/dev/video0: unplugged")

        def close(self) -> None:
            pass

    with RunningPage() as page:
        for path in ("/healthz", "/readyz"):
            assert (page.get(path).status, page.get(path).text) == (200, "ok\n")
        assert page.get("/healthz", method="HEAD").status == 200
    with RunningPage(build_source=NoCamera, waits=False) as page:  # type: ignore[arg-type,return-value]
        deadline = time.monotonic() + 10
        while "unplugged" not in (answer := page.get("/healthz")).text:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.02)
        assert answer.status == 503
        assert answer.text == "no source: /dev/video0: unplugged\n"


def test_a_token_guards_all_but_health_whose_reasons_it_guards(tmp_path: Path) -> None:
    with RunningPage(WebSettings(address="0.0.0.0", port=0, token_file=token(tmp_path))) as page:
        assert page.get("/healthz").status == 200
        for path in ("/metrics", "/api/state", "/preview.jpg", "/preview.mjpeg"):
            assert page.get(path).status == 401
            assert page.get(path, {"Authorization": "Bearer wrong"}).status == 401
        assert page.post("/api/controls", {"mirror": True}).status == 401
        assert page.get("/metrics", BEARER).status == 200
        assert page.get("/api/state", BEARER).json["login"] is True
        assert page.post("/api/controls", {"mirror": True}, BEARER).status == 200
        assert TOKEN not in page.get("/api/state", BEARER).text


def test_signing_in_gives_a_cookie_that_scripts_and_other_sites_cannot_use(tmp_path: Path) -> None:
    with RunningPage(WebSettings(address="0.0.0.0", port=0, token_file=token(tmp_path))) as page:
        sent_away = page.get("/")
        assert (sent_away.status, sent_away.headers["Location"]) == (302, "login")
        assert "Token" in page.get("/login").text
        assert page.post("/login", {"token": "wrong"}).status == 403
        assert page.post("/login", {"token": 5}).status == 403
        assert page.post("/login", [TOKEN]).status == 403
        answer = page.post("/login", {"token": TOKEN})
        assert answer.status == 200
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        session = {"Cookie": cookie.partition(";")[0]}
        assert page.get("/", session).status == 200
        assert page.get("/api/state", session).status == 200
        assert page.post("/logout", {}, session).status == 200
        assert page.get("/api/state", session).status == 401


def test_other_sites_can_neither_change_nor_read_anything_on_loopback() -> None:
    with RunningPage() as page:
        port = page.url.rpartition(":")[2]
        wish = {"mirror": True}
        for headers in (
            {"Origin": "http://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Content-Type": "text/plain"},
            {"Host": f"evil.example:{port}"},
        ):
            assert page.post("/api/controls", wish, headers).status == 403, headers
        assert not page.engine.config.geometry.mirror
        # A name that was bound to this address in between is not ours, for reading either.
        for path in ("/", "/api/state", "/metrics", "/preview.jpg", "/healthz"):
            assert page.get(path, {"Host": f"evil.example:{port}"}).status == 403
        assert (
            page.get("/preview.jpg", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status
            == 403
        )
        assert page.get("/api/state", {"Host": f"localhost:{port}"}).status == 200
        same = {"Origin": page.url, "Sec-Fetch-Site": "same-origin"}
        assert page.post("/api/controls", wish, same).status == 200


def test_a_control_changes_the_picture_and_a_mistake_does_not(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "green.png"), np.full((36, 64, 3), (0, 200, 0), np.uint8))
    with RunningPage(WebSettings(port=0, backgrounds=(tmp_path / "green.png",))) as page:
        assert near(corner(page.get("/preview.jpg").body), (0xC0, 0x40, 0x20))
        answer = page.post("/api/controls", {"background": "file:0"})
        assert answer.json["background"] == "file:0"
        assert near(corner(page.get("/preview.jpg").body), (0, 200, 0))
        page.post("/api/controls", {"background": "colour", "colour": "#ff0000"})
        assert near(corner(page.get("/preview.jpg").body), (0, 0, 255))
        answer = page.post("/api/controls", {"background": "none"})
        assert answer.status == 400
        assert "allowed: colour, blur" in answer.json["error"]
        assert near(corner(page.get("/preview.jpg").body), (0, 0, 255))
        assert page.post("/api/controls", b"{").status == 400
        assert page.post("/api/controls", {"colour": "x" * 8000}).status in (400, 413)


def test_controls_that_are_off_are_off() -> None:
    with RunningPage(WebSettings(port=0, controls=False)) as page:
        assert page.get("/api/state").json["controls"] is None
        assert page.post("/api/controls", {"mirror": True}).status == 403


def test_without_the_page_there_are_metrics_and_health_only() -> None:
    with RunningPage(WebSettings(port=0, page=False)) as page:
        for path in ("/", "/login", "/static/page.js", "/api/state", "/preview.jpg", "/preview.mjpeg"):
            assert page.get(path).status == 404
        assert page.post("/api/controls", {"mirror": True}).status == 404
        assert page.get("/metrics").status == 200
        assert page.get("/healthz").status == 200


def test_the_room_is_shown_only_where_the_configuration_says_so() -> None:
    with RunningPage() as page:
        assert page.get("/preview.jpg?view=camera").status == 403
        assert page.get("/preview.mjpeg?view=camera").status == 403
        assert page.get("/api/state").json["views"] == ["output", "mask"]
        shown = page.engine.config.model_copy(
            update={"web": replace(page.engine.config.web, show_camera=True)}
        )
        page.engine.reload(shown)
        picture = cv2.imdecode(np.frombuffer(page.get("/preview.jpg?view=camera").body, np.uint8), 1)
        assert picture.shape == (180, 640, 3)
        assert page.get("/api/state").json["views"] == ["output", "mask", "camera"]
    with RunningPage(WebSettings(port=0), background=BackgroundSettings(type="blur")) as page:
        assert page.get("/preview.jpg?view=room").status == 404


def read_parts(stream: object, count: int) -> list[bytes]:
    """The first JPEGs of a multipart stream."""
    parts = []
    while len(parts) < count:
        line = stream.readline()  # type: ignore[attr-defined]
        if line.startswith(b"Content-Length:"):
            length = int(line.partition(b":")[2])
            stream.readline()  # type: ignore[attr-defined]
            parts.append(stream.read(length))  # type: ignore[attr-defined]
    return parts


def test_the_preview_moves_at_ten_pictures_a_second_at_most_and_only_while_somebody_looks() -> None:
    with RunningPage() as page:
        assert not page.engine.tap.is_asked
        started = time.monotonic()
        with urllib.request.urlopen(page.url + "/preview.mjpeg", timeout=20) as stream:
            parts = read_parts(stream, 8)
            took = time.monotonic() - started
            assert page.get("/api/state").json["watchers"] == 1
        assert took >= 7 * preview.INTERVAL_S * 0.95
        assert len(set(parts)) > 4
        assert all(part.startswith(b"\xff\xd8") for part in parts)
        deadline = time.monotonic() + 10
        while page.get("/api/state").json["watchers"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # The last question may still be open until the next frame; from then on the tap is not asked again.
        page.get("/api/state")
        wanted = page.engine.frames_out + 3
        while page.engine.frames_out < wanted:
            time.sleep(0.01)
        assert not page.engine.tap.is_asked


def test_watchers_are_few_and_one_who_does_not_read_holds_up_nobody() -> None:
    with RunningPage() as page, contextlib.ExitStack() as stack:
        host, port = "127.0.0.1", int(page.url.rpartition(":")[2])
        for _ in range(preview.MOST_WATCHERS - 1):
            lazy = stack.enter_context(socket.create_connection((host, port)))
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(b"GET /preview.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with urllib.request.urlopen(page.url + "/preview.mjpeg", timeout=20) as stream:
            read_parts(stream, 2)
            assert page.get("/preview.jpg").status == 503
            frames = page.engine.frames_out
            started = time.monotonic()
            read_parts(stream, 10)
            rate = (page.engine.frames_out - frames) / (time.monotonic() - started)
        assert rate > 15  # of 30: the machine may be busy


def test_watchers_who_come_and_go_leave_nothing_behind() -> None:
    def left() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with RunningPage() as page:
        address = ("127.0.0.1", int(page.url.rpartition(":")[2]))

        def come_and_go() -> None:
            with socket.create_connection(address) as watcher:
                watcher.settimeout(20)
                watcher.sendall(b"GET /preview.mjpeg HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert watcher.recv(64).startswith(b"HTTP/1.1 200")

        def all_gone() -> bool:
            return page.get("/api/state").json["watchers"] == 0

        def wait_until_gone() -> None:
            deadline = time.monotonic() + 20
            while not all_gone():
                assert time.monotonic() < deadline
                time.sleep(0.02)

        come_and_go()
        wait_until_gone()
        before = left()
        for _ in range(20):
            come_and_go()
            wait_until_gone()
        assert left() <= (before[0] + 2, before[1])


def test_connections_are_few() -> None:
    with RunningPage() as page, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(page.url.rpartition(":")[2]))
        held = [
            stack.enter_context(socket.create_connection(address)) for _ in range(server.MOST_CONNECTIONS)
        ]
        time.sleep(0.2)
        one_too_many = stack.enter_context(socket.create_connection(address))
        one_too_many.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert one_too_many.recv(1) == b""
        held[0].close()
        deadline = time.monotonic() + 10
        while True:
            try:
                assert page.get("/healthz").status == 200
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_a_reload_moves_the_server_and_a_port_that_is_taken_leaves_it_where_it_is() -> None:
    with RunningPage() as page, socket.create_server(("127.0.0.1", 0)) as taken:
        config, url = page.engine.config, page.url
        refused = config.model_copy(update={"web": replace(config.web, port=taken.getsockname()[1])})
        with pytest.raises(ConfigError, match=r"web\.port: cannot listen on"):
            page.engine.reload(refused)
        assert page.get("/healthz").status == 200
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        page.engine.reload(config.model_copy(update={"web": replace(config.web, port=port)}))
        assert page.url != url
        assert page.get("/healthz").status == 200
        page.engine.reload(config.model_copy(update={"web": replace(config.web, port=None)}))
        assert page.server.url is None


def test_a_port_that_is_taken_at_the_start_is_a_warning_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with RunningPage(WebSettings(port=port)) as page:
            assert page.server.url is None
    assert f"no page and no metrics: cannot listen on 127.0.0.1:{port}" in caplog.text


@pytest.mark.parametrize("how", ["none", "missing file", "short file", "missing variable"])
def test_beyond_loopback_nothing_is_served_without_a_good_token(tmp_path: Path, how: str) -> None:
    (tmp_path / "short").write_text("short\n")
    settings = {
        "none": WebSettings(address="0.0.0.0", port=0),
        "missing file": WebSettings(address="0.0.0.0", port=0, token_file=tmp_path / "nothing"),
        "short file": WebSettings(address="0.0.0.0", port=0, token_file=tmp_path / "short"),
        "missing variable": WebSettings(address="0.0.0.0", port=0, token_env="EDGE_SEG_NO_SUCH_TOKEN"),
    }[how]
    with pytest.raises(ConfigError, match=r"^web\."), RunningPage(settings, waits=False):
        pass


def test_a_token_in_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "EDGE_SEG_TEST_TOKEN", TOKEN)
    with RunningPage(WebSettings(port=0, token_env="EDGE_SEG_TEST_TOKEN")) as page:
        assert page.get("/api/state").status == 401
        assert page.get("/api/state", BEARER).status == 200


def test_requests_are_not_logged_and_the_thread_ends_soon(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        with RunningPage() as page:
            page.get("/nothing")
            page.get("/metrics")
            page.get("/api/state", {"Host": "evil.example"})
            caplog.clear()
            page.get("/nothing")
            stream = urllib.request.urlopen(page.url + "/preview.mjpeg", timeout=20)
            read_parts(stream, 1)
            started = time.monotonic()
            page.server.__exit__(None, None, None)
            assert time.monotonic() - started < 2
        stream.close()
    assert "nothing" not in caplog.text
    assert "after headers written" not in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "web"]


def test_the_state_is_plain_json_without_nan() -> None:
    with RunningPage() as page:
        text = page.get("/api/state").text
        found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert found["healthy"] is True
        assert found["frames"] > 0
        assert {"pyramid", "flow", "composite"} <= {stage["name"] for stage in found["stages"]}
        assert found["outputs"][0]["state"] == "running"
