"""What the page may change, and how a wish becomes a configuration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
from pydantic import ValidationError

from edge_seg import config_checks
from edge_seg.backgrounds import BackgroundSettings, BackgroundType, parse_colour
from edge_seg.config import Config
from edge_seg.errors import ConfigError
from edge_seg.matte import Quality

QUALITIES: tuple[Quality, ...] = get_args(Quality)
KEYS = ("background", "colour", "strength", "quality", "mirror")


class Controls:
    """The choices that a configuration leaves to the page. Files are named by number: no path comes from outside."""

    def __init__(self) -> None:
        self._seen: list[Path] = []
        """Files that stood behind the person so far: they can be chosen again."""

    def _files(self, config: Config) -> list[Path]:
        own = config.background.path
        if own is not None and own not in self._seen:
            self._seen.append(own)
        return list(dict.fromkeys([*self._seen, *config.web.backgrounds]))

    def describe(self, config: Config) -> dict[str, Any]:
        """The choices, and what is chosen now, for the page."""
        background, files = config.background, self._files(config)
        choices = [{"id": "colour", "name": "Colour"}, {"id": "blur", "name": "Blur"}]
        choices += [{"id": f"file:{index}", "name": path.stem} for index, path in enumerate(files)]
        chosen = _id_of(background, files)
        if chosen not in [choice["id"] for choice in choices]:
            choices.append({"id": chosen, "name": "Preview: the room" if chosen == "none" else chosen})
        return {
            "backgrounds": choices,
            "qualities": list(QUALITIES),
            "background": chosen,
            "colour": _hex(background.colour),
            "strength": background.strength,
            "quality": config.matte.quality,
            "mirror": config.geometry.mirror,
        }

    def apply(self, config: Config, wishes: object) -> Config:
        """`config` with the wishes, an object with some of KEYS. Raises ConfigError, which names the wish."""
        if not isinstance(wishes, dict) or not set(wishes) <= set(KEYS):
            raise ConfigError(f"expected an object with some of {', '.join(KEYS)}")
        background = config.background
        if "background" in wishes:
            background = _chosen(background, wishes["background"], self._files(config))
        if "colour" in wishes:
            background = replace(background, colour=wishes["colour"])
        if "strength" in wishes:
            background = replace(background, strength=wishes["strength"])
        changed = config.model_copy(
            update={
                "background": background,
                "matte": replace(config.matte, quality=wishes.get("quality", config.matte.quality)),
                "geometry": replace(config.geometry, mirror=wishes.get("mirror", config.geometry.mirror)),
            }
        )
        return _validated(changed)


def _id_of(background: BackgroundSettings, files: list[Path]) -> str:
    if background.type in ("image", "video") and background.path in files:
        return f"file:{files.index(background.path)}"
    return background.type


def _chosen(current: BackgroundSettings, wish: object, files: list[Path]) -> BackgroundSettings:
    # The page never chooses `none`: it would show the room to all viewers.
    if wish in ("colour", "blur"):
        kind: BackgroundType = "colour" if wish == "colour" else "blur"
        return replace(current, type=kind, path=None)
    for index, path in enumerate(files):
        if wish == f"file:{index}":
            return replace(current, type=_kind(path), path=path)
    if wish == _id_of(current, files):
        return current
    raise ConfigError(f"background: got {wish!r}, allowed: colour, blur, and the files that the page lists")


def _kind(path: Path) -> BackgroundType:
    return "image" if cv2.haveImageReader(str(path)) else "video"


def _hex(colour: str) -> str:
    red, green, blue = parse_colour(colour)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _validated(config: Config) -> Config:
    """The same, read again as the configuration file is: dataclasses do not look at what is put into them."""
    try:
        found = Config.model_validate_json(
            json.dumps(config.model_dump(mode="json", warnings=False)), strict=True
        )
        parse_colour(found.background.colour)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name}: got {first['input']!r}, allowed: {first['msg']}") from error
    problems = [f"{'.'.join(map(str, key))}: {what}" for key, what in config_checks.problems(found)]
    if problems:
        raise ConfigError(*problems)
    return found
