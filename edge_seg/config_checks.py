"""What a configuration names beside itself: are the files there, and are they what they are taken for?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2

from edge_seg.config import Config
from edge_seg.encoders import RANKED, Encoding
from edge_seg.errors import ConfigError, ModelError
from edge_seg.model_card import read_model, resolve_model
from edge_seg.page.settings import WebSettings, is_loopback, read_token
from edge_seg.sinks import PushSettings, V4l2OutputSettings
from edge_seg.sinks.rtsp import RtspSettings, RtspUser
from edge_seg.sources import RtspSourceSettings

WIDE = (1280, 720)

Key = tuple[str | int, ...]
Problem = tuple[Key, str]
"""The key, and what is wrong with its value."""


def problems(config: Config) -> Iterator[Problem]:
    """Everything that would stop the daemon although the configuration by itself is right."""
    yield from _source(config)
    yield from _background(config)
    yield from _model(config)
    yield from _outputs(config)
    yield from _web(config.web)


def nearest(word: str, allowed: Iterable[str]) -> str:
    """A hint for a misspelt word, empty when nothing comes near."""
    matches = difflib.get_close_matches(word.lower(), list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]}?)" if matches else ""


def is_path(model: str) -> bool:
    """Whether `model.file` is the path of a file, not the name of a shipped model."""
    return model.endswith(".tflite") or "/" in model


def _source(config: Config) -> Iterator[Problem]:
    source = config.source
    if source.type == "file":
        yield from _file(("source", "path"), Path(source.path))
    if source.type == "csi" and source.tuning_file is not None:
        yield from _file(("source", "tuning_file"), Path(source.tuning_file))
    if source.type == "rtsp":
        yield from _password(("source",), source)
        if _has_password(source) and not source.user:
            yield ("source", "user"), "is missing: there is a password without a user"


def _outputs(config: Config) -> Iterator[Problem]:
    for number, output in enumerate(config.outputs):
        key = ("outputs", number)
        if isinstance(output, V4l2OutputSettings) and output.device == getattr(config.source, "device", None):
            yield (*key, "device"), f"{output.device} is the source, too: a picture of its own picture"
        if isinstance(output, Encoding) and output.encoder != "auto":
            made = next(one.codec for one in RANKED if one.element == output.encoder)
            if made != output.codec:
                yield (
                    (*key, "encoder"),
                    f"{output.encoder} encodes {made}, not {output.codec} as `codec` says",
                )
        if output.type == "rtsp":
            for found, what in _rtsp_output(output):
                yield (*key, *found), what
        if output.type == "push":
            yield from _push(key, output)
        if output.type == "file":
            keeps = [name for name in ("keep_mb", "keep_files") if getattr(output, name)]
            if keeps and not (output.split_s or output.split_mb):
                yield (
                    (*key, keeps[0]),
                    "the file that is being written is never removed: set split_s or split_mb",
                )
            if output.keep_mb and output.keep_mb < 2 * output.split_mb:
                yield (*key, "keep_mb"), f"is less than two files of split_mb: {output.split_mb}"


def _rtsp_output(output: RtspSettings) -> Iterator[Problem]:
    names = [user.name for user in output.users]
    for number, user in enumerate(output.users):
        key = ("users", number)
        if names.index(user.name) != number:
            yield (*key, "name"), f"{user.name} stands twice"
        yield from _password(key, user)
        if user.password_file is None and user.password_env is None:
            yield key, "needs a password_file or a password_env"
    if output.tls is None:
        return
    paths = {"certificate": Path(output.tls.certificate), "key": Path(output.tls.key)}
    if output.tls.self_signed and not any(path.exists() for path in paths.values()):
        if not paths["key"].parent.is_dir():
            yield ("tls", "key"), f"there is no folder {paths['key'].parent}"
        return
    for name, path in paths.items():
        yield from _file(("tls", name), path)


def _push(key: Key, output: PushSettings) -> Iterator[Problem]:
    yield from _password(key, output)
    scheme = output.url.partition(":")[0]
    if scheme.startswith("rtsp") and _has_password(output) and not output.user:
        yield (*key, "user"), "is missing: there is a password without a user"
    if output.user and not _has_password(output):
        yield (*key, "password_file"), "is missing: there is a user without a password"
    if output.user and scheme == "srt":
        yield (*key, "user"), "SRT knows no users, only a passphrase (password_file)"
    if output.codec != "h264" and scheme.startswith("rtmp"):
        yield (*key, "codec"), "RTMP carries h264 only"


def _has_password(settings: RtspSourceSettings | PushSettings) -> bool:
    return settings.password_file is not None or settings.password_env is not None


def _password(key: Key, settings: RtspSourceSettings | PushSettings | RtspUser) -> Iterator[Problem]:
    if settings.password_file is not None:
        yield from _file((*key, "password_file"), Path(settings.password_file))
        if settings.password_env is not None:
            yield (*key, "password_env"), "password_file says the password already: one of the two"


def _background(config: Config) -> Iterator[Problem]:
    kind, path = config.background.type, config.background.path
    key = ("background", "path")
    if path is None:
        if kind in ("image", "video"):
            yield key, f"is missing: a background of type {kind} needs a file"
        return
    found = list(_file(key, path))
    yield from found
    if kind == "image" and not found and not cv2.haveImageReader(str(path)):
        yield key, f"is no image (PNG, JPEG, WebP, BMP, TIFF are): {path}"


def _model(config: Config) -> Iterator[Problem]:
    key = ("model", "file")
    found = list(_file(key, Path(config.model.file))) if is_path(config.model.file) else []
    yield from found
    if not found:
        try:
            read_model(resolve_model(config.model.file, WIDE, config.model.card))
        except ModelError as error:
            yield key, str(error)


def _web(web: WebSettings) -> Iterator[Problem]:
    for index, path in enumerate(web.backgrounds):
        yield from _file(("web", "backgrounds", index), path)
    if web.token_file is not None and web.token_env is not None:
        yield ("web", "token_env"), "token_file says the token already: one of the two"
    has_token = web.token_file is not None or web.token_env is not None
    if web.port is not None and not has_token and not is_loopback(web.address):
        yield (
            ("web", "address"),
            f"{web.address} can be reached from other machines: set token_file or token_env, or listen on 127.0.0.1",
        )
    if web.token_file is not None:
        found = list(_file(("web", "token_file"), web.token_file))
        yield from found
        if not found:
            try:
                read_token(web)
            except ConfigError as error:
                yield ("web", "token_file"), str(error).removeprefix("web.token_file: ")


def _file(key: Key, path: Path) -> Iterator[Problem]:
    unset = next((part for part in path.parts if part.startswith("$")), None)
    if unset is not None:
        yield (
            key,
            f"{unset} is not set: systemd sets it for a service that has such a folder (docs/service.md)",
        )
        return
    try:
        if not path.exists():
            beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            yield key, f"no such file: {path}{nearest(path.name, beside)}"
        elif not path.is_file():
            yield key, f"is not a file: {path}"
        elif path.stat().st_size == 0:
            yield key, f"is empty: {path}"
        else:
            with path.open("rb"):
                pass
    except OSError as error:
        yield key, f"cannot be read: {path}: {error.strerror}"
