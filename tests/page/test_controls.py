from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config
from edge_seg.errors import ConfigError
from edge_seg.page.controls import Controls
from edge_seg.page.settings import WebSettings
from edge_seg.sources import SyntheticSettings


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name in ("office.png", "beach.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    return Config(
        source=SyntheticSettings(),
        background=BackgroundSettings(type="image", path=tmp_path / "office.png"),
        web=WebSettings(backgrounds=(tmp_path / "beach.png",)),
    )


def test_a_wish_becomes_a_configuration_that_differs_in_nothing_else(config: Config) -> None:
    changed = Controls().apply(config, {"quality": "best", "mirror": True})
    assert changed.matte.quality == "best"
    assert changed.geometry.mirror
    back = changed.model_copy(update={"matte": config.matte, "geometry": config.geometry})
    assert back == config


def test_backgrounds_are_chosen_among_the_files_that_are_configured(config: Config, tmp_path: Path) -> None:
    controls = Controls()
    described = controls.describe(config)
    assert [choice["name"] for choice in described["backgrounds"]] == ["Colour", "Blur", "office", "beach"]
    assert described["background"] == "file:0"
    beach = controls.apply(config, {"background": "file:1"})
    assert beach.background.path == tmp_path / "beach.png"
    blurred = controls.apply(beach, {"background": "blur", "strength": 0.9})
    assert (blurred.background.type, blurred.background.strength) == ("blur", 0.9)
    # The configuration's own picture can be chosen again, though nothing names it any more.
    assert controls.apply(blurred, {"background": "file:0"}).background.path == tmp_path / "office.png"


@pytest.mark.parametrize(
    ("wish", "named"),
    [
        ({"background": "file:7"}, "background"),
        ({"background": "file:/etc/passwd"}, "background"),
        ({"background": "/etc/passwd"}, "background"),
        ({"background": "none"}, "background"),
        ({"background": ["blur"]}, "background"),
        ({"strength": 7}, "background.strength"),
        ({"strength": "much"}, "background.strength"),
        ({"strength": float("nan")}, "background.strength"),
        ({"colour": "octarine"}, "background.colour"),
        ({"colour": 5}, "background.colour"),
        ({"quality": "perfect"}, "matte.quality"),
        ({"mirror": "yes"}, "geometry.mirror"),
        ({"privacy": {"mode": "open"}}, "expected an object with some of"),
        ({"path": "/etc/passwd"}, "expected an object with some of"),
        (["mirror"], "expected an object"),
        (None, "expected an object"),
    ],
)
def test_everything_else_is_refused_by_name(config: Config, wish: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}"):
        Controls().apply(config, wish)


def test_the_page_can_leave_a_preview_but_never_begin_one(config: Config) -> None:
    controls = Controls()
    preview = config.model_copy(update={"background": BackgroundSettings(type="none")})
    described = controls.describe(preview)
    assert described["background"] == "none"
    assert controls.apply(preview, {"mirror": True}).background.type == "none"
    left = controls.apply(preview, {"background": "colour"})
    with pytest.raises(ConfigError):
        controls.apply(left, {"background": "none"})


def test_a_file_that_has_gone_is_refused_and_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / "beach.png").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        Controls().apply(config, {"background": "file:1"})


def test_colours_by_name_are_shown_as_the_page_needs_them(config: Config) -> None:
    named = config.model_copy(
        update={"background": replace(config.background, type="colour", path=None, colour="lime")}
    )
    assert Controls().describe(named)["colour"] == "#00ff00"
