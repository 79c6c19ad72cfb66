"""Nobody sees a picture without the password, and nobody sees the password."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_seg.errors import ConfigError, SinkError
from edge_seg.sinks.rtsp import RtspSettings, RtspSink, RtspUser, TlsSettings
from edge_seg.sinks.rtsp.auth import exposure, is_loopback
from edge_seg.sinks.rtsp.tls import make_self_signed
from tests.e2e.daemon import watch
from tests.rtsp_client import RtspClient
from tests.sinks.producer import OUTPUT, Producer

SECRET = "correct horse; battery @ staple"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspSink]:
    """A server with TLS and the users anna, who may watch, and bob, who may not."""
    folder = tmp_path_factory.mktemp("auth")
    (folder / "password").write_text(SECRET + "\n")
    file = str(folder / "password")
    sink = RtspSink(
        RtspSettings(
            port=0,
            users=(RtspUser("anna", password_file=file), RtspUser("bob", password_file=file, role="none")),
            tls=TlsSettings(str(folder / "cert.pem"), str(folder / "key.pem"), self_signed=True),
        )
    )
    sink.open(OUTPUT)
    with Producer(sink):
        yield sink
    sink.close()


def test_the_right_password_shows_the_picture_over_tls(guarded: RtspSink) -> None:
    assert guarded.url.startswith("rtsps://127.0.0.1:")
    with RtspClient(guarded.url, "anna", SECRET) as viewer:
        viewer.play()
        assert viewer.packet()[0] in (0, 1)


@pytest.mark.parametrize(
    ("user", "password", "status"),
    [("", "", 401), ("anna", "wrong", 401), ("anna", "", 401), ("eve", SECRET, 401), ("bob", SECRET, 404)],
)
def test_anything_else_shows_nothing(guarded: RtspSink, user: str, password: str, status: int) -> None:
    with RtspClient(guarded.url, user, password) as viewer:
        assert viewer.ask("DESCRIBE")[0] == status
        assert viewer.setup() == status
        assert viewer.ask("PLAY")[0] in (401, 404, 454)
        assert not guarded.wants_pictures or guarded.viewers == 0


def test_a_client_without_tls_gets_nothing(guarded: RtspSink) -> None:
    with RtspClient(guarded.url.replace("rtsps", "rtsp"), "anna", SECRET) as viewer:
        viewer.socket.settimeout(3)
        with pytest.raises((ConnectionError, TimeoutError, IndexError, ValueError)):
            viewer.ask("OPTIONS")


def test_who_says_nothing_to_a_tls_server_holds_up_nobody(guarded: RtspSink) -> None:
    with RtspClient(guarded.url.replace("rtsps", "rtsp")), RtspClient(guarded.url, "anna", SECRET) as viewer:
        viewer.socket.settimeout(5)
        assert viewer.ask("DESCRIBE")[0] == 200


def test_a_common_player_asks_for_the_password_and_plays(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("geheim")
    sink = RtspSink(RtspSettings(port=0, users=(RtspUser("anna", str(tmp_path / "password")),)))
    sink.open(OUTPUT)
    try:
        with Producer(sink):
            viewer = watch(sink.url.replace("://", "://anna:geheim@"))
            next(viewer.decode(video=0))
            viewer.close()
    finally:
        sink.close()


def test_a_password_comes_from_the_environment_and_never_reaches_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("VIEWER_PASSWORD", SECRET)
    settings = RtspSettings(port=0, users=(RtspUser("anna", password_env="VIEWER_PASSWORD"),))
    sink = RtspSink(settings)
    sink.open(OUTPUT)
    try:
        with Producer(sink):
            with RtspClient(sink.url, "anna", "wrong") as viewer:
                assert viewer.ask("DESCRIBE")[0] == 401
            with RtspClient(sink.url, "anna", SECRET) as viewer:
                assert viewer.ask("DESCRIBE")[0] == 200
    finally:
        sink.close()
    assert SECRET not in caplog.text
    assert SECRET not in repr(settings)
    assert SECRET not in repr(vars(sink))


def test_a_password_that_is_missing_or_empty_is_an_error_that_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "empty").touch()
    for user, what in (
        (RtspUser("anna", str(tmp_path / "no")), "users.anna.password_file: .*No such file"),
        (RtspUser("anna", str(tmp_path / "empty")), r"users\.anna: the password is empty \(.*/empty\)"),
        (RtspUser("anna"), r"the password is empty \(no password_file or password_env is named\)"),
        (RtspUser("anna", password_env="NOWHERE"), "there is no environment variable NOWHERE"),
    ):
        with pytest.raises(ConfigError, match=what):
            RtspSink(RtspSettings(port=0, users=(user,))).open(OUTPUT)


def test_who_listens_to_the_network_without_a_password_is_warned() -> None:
    assert exposure(RtspSettings()) is None
    assert exposure(RtspSettings(address="localhost")) is None
    assert exposure(RtspSettings(address="0.0.0.0", users=(RtspUser("anna"),))) is None
    assert "anybody who reaches 0.0.0.0:8554 can watch" in str(exposure(RtspSettings(address="0.0.0.0")))
    assert is_loopback("::1")
    assert not is_loopback("::")
    assert not is_loopback("name.invalid")


def test_a_certificate_is_made_once_for_this_host_with_a_key_for_its_owner_only(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_self_signed(certificate, key, "192.0.2.7")
    assert key.stat().st_mode & 0o077 == 0
    shown = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "192.0.2.7" in shown
    assert "DNS:localhost" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cert.pem", "key.pem"]


def test_tls_files_that_are_missing_or_no_certificate_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("hello")
    text = str(tmp_path / "text.pem")
    with pytest.raises(ConfigError, match=r"text\.pem and .*text\.pem are not a certificate and its key"):
        RtspSink(RtspSettings(port=0, tls=TlsSettings(text, text))).open(OUTPUT)
    nowhere = str(tmp_path / "no" / "cert.pem")
    with pytest.raises(SinkError, match="there is no folder"):
        RtspSink(RtspSettings(port=0, tls=TlsSettings(nowhere, nowhere, self_signed=True))).open(OUTPUT)
