"""Secrets come from files and the environment, and stay out of what is shown."""

from pathlib import Path

import pytest

from edge_seg import secret
from edge_seg.errors import ConfigError


def test_a_secret_that_is_not_there_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^source\.password_env: there is no environment variable NOT_SET$"
    ):
        secret.read("source", None, "NOT_SET")
    with pytest.raises(ConfigError, match=r"^web\.token_file: .*/no: cannot be read: No such file"):
        secret.read("web", tmp_path / "no", None, "token")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        secret.read("source", tmp_path / "binary", None)


def test_the_first_line_of_the_file_is_the_secret_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("one two \n\n")
    assert secret.read("source", file, "ANY") == "one two "
    file.write_text("other")
    assert secret.read("source", file, "ANY") == "other"
    file.write_text("")
    assert secret.read("source", file, None) == ""


def test_the_environment_is_asked_where_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "s3cret")
    assert secret.read("source", None, "CAMERA_PASSWORD") == "s3cret"
    assert secret.read("source", None, None) == ""


def test_logs_name_the_place_without_what_may_be_secret() -> None:
    assert secret.public_url("rtsp://cam:554/a/b?user=me&password=x") == "rtsp://cam:554/a/b?..."
    assert secret.public_url("rtsp://me:x@cam/a") == "rtsp://cam/a"
    assert secret.public_url("srt://host:1?streamid=secret") == "srt://host:1?..."
    assert secret.public_url("rtmp://host/live") == "rtmp://host/live"
