"""A YAML file -> Config, or every error in it at once, each with its line, key and what would be right."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edge_seg import config_checks
from edge_seg.config import Config
from edge_seg.config_checks import nearest
from edge_seg.errors import ConfigError
from edge_seg.sinks import OutputSettings

Key = tuple[str | int, ...]
"""Where a value stands: ("outputs", 0, "port")."""


def load(path: Path) -> Config:
    """The validated configuration; paths in it are relative to its own folder and come out absolute.

    Raises ConfigError with one problem per line, `FILE:LINE: key: what, got, allowed`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    document = _Document(path, text)
    if not document.problems:
        try:
            text = json.dumps(_without_shorthands(document.data), default=str)
            # By way of JSON, since a strict reading of Python's own types takes no list for a tuple.
            config = Config.model_validate_json(text, strict=True)
        except ValidationError as error:
            document.problems += [
                document.describe(detail) for detail in _innermost(error.errors(include_url=False))
            ]
        else:
            config = _with_absolute_paths(config, path.resolve().parent)
            document.problems += document.unusable_files(config)
    if document.problems:
        raise ConfigError(*document.problems)
    return config


def dump(config: Config) -> str:
    """The effective configuration as YAML, every default spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _Document:
    """A YAML text with the line of every key, and the problems found in it."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.problems: list[str] = []
        self.data: Any = {}
        self._lines: dict[Key, int] = {}
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is not None:
                self._walk(node, ())
                self.data = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            self.problems = [f"{path}:{line}: not valid YAML: {error.problem or error}"]
        except yaml.YAMLError as error:
            self.problems = [f"{path}:1: not valid YAML: {error}"]
        if not self.problems and not isinstance(self.data, dict):
            self.problems = [f"{path}:1: expected keys such as `source:`, got {_shown(self.data)}"]

    def _walk(self, node: yaml.Node, key: Key) -> None:
        self._lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for name_node, value_node in node.value:
                name = str(name_node.value)
                line = name_node.start_mark.line + 1
                if name in seen and name != "<<":
                    self.problems.append(
                        self._problem(line, (*key, name), f"stands twice, first in line {seen[name]}")
                    )
                seen[name] = line
                here = (*key, name)
                self._lines[here] = line
                self._walk(value_node, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._walk(item, (*key, index))

    def _line(self, key: Key) -> int:
        """The line of the key, or of the nearest thing around it that is in the file."""
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 1)

    def _problem(self, line: int, key: Key, what: str) -> str:
        return f"{self.path}:{line}: {_dotted(key)}: {what}"

    def describe(self, detail: ErrorDetails) -> str:
        """One line for one error of pydantic's."""
        key = self._without_tags(detail["loc"])
        kind, context = detail["type"], detail.get("ctx", {})
        message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        if kind in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = _allowed_keys(self.data, key[:-1])
            what = f"unknown key{nearest(str(key[-1]), allowed)}, allowed: {', '.join(sorted(allowed))}"
        elif kind in ("missing", "missing_argument"):
            what = "is missing and has no default"
        elif kind == "union_tag_not_found":
            key, what = (*key, "type"), f"is missing, allowed: {', '.join(_tags(self.data, key))}"
        elif kind in ("literal_error", "union_tag_invalid"):
            expected = context.get("expected_tags") or context.get("expected", "")
            allowed = [word.strip(" '") for word in str(expected).replace(" or ", ", ").split(",")]
            got = context.get("tag", detail["input"])
            key = (*key, "type") if kind == "union_tag_invalid" else key
            what = f"got {_shown(got)}{nearest(str(got), allowed)}, allowed: {', '.join(allowed)}"
        elif kind in ("dataclass_type", "model_type", "model_attributes_type") or message == "an object":
            what = f"expected keys below it, got {_shown(detail['input'])}"
        else:
            what = f"got {_shown(detail['input'])}, allowed: {message}"
        return self._problem(self._line(key), key, what)

    def _without_tags(self, loc: tuple[str | int, ...]) -> Key:
        """pydantic's location, less the names of union members that it puts between the keys."""
        key: list[str | int] = []
        value = self.data
        for part in loc:
            if isinstance(value, dict) and part not in value and value.get("type") == part:
                continue
            key.append(part)
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
        return tuple(key)

    def unusable_files(self, config: Config) -> list[str]:
        return [self._problem(self._line(key), key, what) for key, what in config_checks.problems(config)]


def _without_shorthands(data: dict[str, Any]) -> dict[str, Any]:
    """`model: auto` is short for `model: {file: auto}`, `source: {gst: ...}` for `{type: gst, launch: ...}`."""
    model, source = data.get("model"), data.get("source")
    if isinstance(model, str):
        data = {**data, "model": {"file": model}}
    if isinstance(source, dict) and "gst" in source and "type" not in source:
        others = {key: value for key, value in source.items() if key != "gst"}
        data = {**data, "source": {"type": "gst", "launch": source["gst"], **others}}
    return data


def _innermost(details: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Without the repetitions that unions of plain types make: one error per place."""
    seen = set()
    for detail in details:
        if detail["loc"] not in seen:
            seen.add(detail["loc"])
            yield detail


def _dotted(key: Key) -> str:
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the file"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    text = json.dumps(value, default=str, ensure_ascii=False)
    text = re.sub(r"://[^/\s]*@", "://***@", text)  # a password in a URL is for nobody's log
    text = re.sub(r"(passphrase=)[^&\"\s]*", r"\1***", text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _section_types(annotation: Any) -> Iterator[type]:
    """The dataclasses and models in an annotation, however deep in unions, lists and Annotated."""
    if isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, BaseModel)):
        yield annotation
    for argument in get_args(annotation):
        yield from _section_types(argument)


def _sections_at(data: Any, key: Key) -> list[type]:
    """Which sections of the schema may stand at `key`, given the `type` that the data names there."""
    sections: list[type] = [Config]
    value = data
    for part in key:
        if isinstance(part, int):
            value = value[part] if isinstance(value, list) else None
            continue
        value = value.get(part) if isinstance(value, dict) else None
        hints = [get_type_hints(section, include_extras=True).get(part) for section in sections]
        sections = [found for hint in hints if hint is not None for found in _section_types(hint)]
        sections = _of_type(sections, value)
    return _of_type(sections, value)


def _of_type(sections: list[type], value: object) -> list[type]:
    """Those of the sections that the `type` in `value` names; all when it names none."""
    tag = value.get("type") if isinstance(value, dict) else None
    return [section for section in sections if tag is not None and _tag(section) == tag] or sections


def _tag(section: type) -> object:
    """What a section's `type` must be, None where it has no such key."""
    if not is_dataclass(section):
        return None
    return next((field.default for field in fields(section) if field.name == "type"), None)


def _field_names(section: type) -> list[str]:
    if issubclass(section, BaseModel):
        return list(section.model_fields)
    return [field.name for field in fields(section)] if is_dataclass(section) else []


def _allowed_keys(data: Any, key: Key) -> list[str]:
    return sorted({name for section in _sections_at(data, key) for name in _field_names(section)})


def _tags(data: Any, key: Key) -> list[str]:
    return sorted({str(_tag(section)) for section in _sections_at(data, key)})


_SYSTEMD_FOLDER = re.compile(r"^\$\{?(CREDENTIALS_DIRECTORY|STATE_DIRECTORY)\}?(?=/)")
"""What systemd calls the folders that it makes for a service (LoadCredential=, StateDirectory=)."""


def _in_systemd_folder(path: str) -> str:
    """`$CREDENTIALS_DIRECTORY/camera` as it is here; unchanged where there is no such folder."""
    return _SYSTEMD_FOLDER.sub(lambda found: os.environ.get(found[1], found[0]), path)


def _with_absolute_paths(config: Config, base: Path) -> Config:
    """Relative paths are meant from the file that names them."""

    def absolute(path: str | Path) -> Path:
        return base / Path(_in_systemd_folder(str(path))).expanduser()

    changes: dict[str, Any] = {}
    source = config.source
    if source.type == "file":
        changes["source"] = replace(source, path=str(absolute(source.path)))
    if source.type == "rtsp" and source.password_file is not None:
        changes["source"] = replace(source, password_file=str(absolute(source.password_file)))
    if source.type == "csi" and source.tuning_file is not None:
        changes["source"] = replace(source, tuning_file=str(absolute(source.tuning_file)))
    if config.background.path:
        changes["background"] = replace(config.background, path=absolute(config.background.path))
    if config_checks.is_path(config.model.file):
        changes["model"] = replace(config.model, file=str(absolute(config.model.file)))
    web = config.web
    changes["web"] = replace(
        web,
        backgrounds=tuple(absolute(path) for path in web.backgrounds),
        token_file=None if web.token_file is None else absolute(web.token_file),
    )
    changes["outputs"] = [_output_with_absolute_paths(output, absolute) for output in config.outputs]
    return config.model_copy(update=changes)


def _output_with_absolute_paths(
    output: OutputSettings, absolute: Callable[[str | Path], Path]
) -> OutputSettings:
    if output.type == "file":
        return replace(output, path=str(absolute(output.path)))
    if output.type == "push":
        file = output.password_file
        return output if file is None else replace(output, password_file=str(absolute(file)))
    if output.type == "rtsp":
        users = tuple(
            user
            if user.password_file is None
            else replace(user, password_file=str(absolute(user.password_file)))
            for user in output.users
        )
        tls = output.tls and replace(
            output.tls, certificate=str(absolute(output.tls.certificate)), key=str(absolute(output.tls.key))
        )
        return replace(output, users=users, tls=tls)
    return output
