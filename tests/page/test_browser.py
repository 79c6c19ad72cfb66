"""The page as people see it: in a headless Chromium."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.page.settings import WebSettings
from tests.page.browser import Browser, program
from tests.page.running import RunningPage

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium here: sudo apt install chromium")

TOKEN = "a-token-of-good-length"

READ = """(() => {
  const image = document.getElementById("picture"), canvas = document.createElement("canvas");
  if (!image.naturalWidth) return null;
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0;
  for (let at = 0; at < pixels.length; at += 4) sum = (sum * 31 + pixels[at + 1]) % 1000000007;
  return { sum, corner: [...pixels.slice(4 * (8 * canvas.width + 8), 4 * (8 * canvas.width + 8) + 3)] };
})()"""
"""Of the preview: a sum that tells pictures apart, and red, green and blue of its top left."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """As it was new."""
    chromium.resize(1280, 900)
    chromium.send("Network.clearBrowserCookies")
    chromium.open("about:blank")
    chromium.complaints.clear()
    return chromium


def is_near(expected: tuple[int, int, int]) -> str:
    """An expression that is true while the preview's corner has this colour."""
    return f"(({READ})?.corner ?? [999]).every((value, at) => Math.abs(value - {list(expected)}[at]) < 14)"


def test_the_page_loads_moves_and_changes_the_picture_without_a_complaint(
    browser: Browser, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "beach.png"), np.full((36, 64, 3), (0, 200, 240), np.uint8))
    with RunningPage(WebSettings(port=0, backgrounds=(tmp_path / "beach.png",))) as page:
        browser.open(page.url + "/")
        browser.until("document.getElementById('health-text').textContent === 'live'")

        first = browser.until(READ)
        browser.until(f"({READ})?.sum !== {first['sum']}")  # it moves
        browser.until(is_near((0x20, 0x40, 0xC0)))

        # Numbers and charts are there, and go on.
        browser.until("Number(document.getElementById('fps').textContent) > 1")
        browser.until("document.querySelectorAll('#stages tr').length > 5")
        browser.until(
            "document.querySelector('#latency-chart path')?.getAttribute('d').split('L').length > 2"
        )
        assert browser.run("document.getElementById('outputs').textContent").startswith("running")

        # A picture among the configured files, then a colour, then blur: viewers see each.
        browser.run("document.querySelector('#backgrounds input[value=\"file:0\"]').click()")
        browser.until(is_near((240, 200, 0)))
        assert page.engine.config.background.type == "image"
        browser.run("document.querySelector('#backgrounds input[value=colour]').click()")
        browser.until("!document.getElementById('colour-row').hidden")
        browser.run(
            "(() => { const colour = document.getElementById('colour'); colour.value = '#ff0000';"
            " colour.dispatchEvent(new Event('change')); })()"
        )
        browser.until(is_near((255, 0, 0)))
        browser.run("document.querySelector('#backgrounds input[value=blur]').click()")
        browser.until("!document.getElementById('strength-row').hidden")
        browser.run("document.getElementById('mirror').click()")
        browser.run("document.querySelector('#qualities input[value=fast]').click()")
        browser.until(
            "fetch('api/state').then((a) => a.json()).then(({ controls: c }) =>"
            " c.mirror && c.quality === 'fast' && c.background === 'blur')"
        )
        assert page.engine.config.matte.quality == "fast"

        # Another view; and nobody looks any more once it is paused.
        before = browser.until(READ)["sum"]
        browser.run("document.querySelector('#views input[value=mask]').click()")
        browser.until(f"({READ})?.sum !== {before}")
        browser.run("document.getElementById('pause').click()")
        browser.until("fetch('api/state').then((a) => a.json()).then((state) => state.watchers === 0)")
        assert browser.complaints == []


def test_what_is_refused_is_said(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "beach.png"
    cv2.imwrite(str(file), np.zeros((36, 64, 3), np.uint8))
    with RunningPage(WebSettings(port=0, backgrounds=(file,))) as page:
        browser.open(page.url + "/")
        browser.until("document.querySelector('#backgrounds input[value=\"file:0\"]') !== null")
        file.unlink()
        browser.run("document.querySelector('#backgrounds input[value=\"file:0\"]').click()")
        browser.until("document.getElementById('controls-error').textContent.includes('no such file')")
        browser.until("document.querySelector('#backgrounds input[value=colour]').checked")


def test_without_the_token_there_is_a_sign_in_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with RunningPage(WebSettings(address="0.0.0.0", port=0, token_file=tmp_path / "token")) as page:
        browser.open(page.url + "/")
        browser.until(
            "location.pathname === '/login' && document.querySelector('button')?.disabled === false"
        )

        def sign_in(token: str) -> None:
            browser.run(
                f"(() => {{ document.getElementById('token').value = '{token}';"
                " document.querySelector('button').click(); })()"
            )

        sign_in("wrong")
        browser.until("document.getElementById('error').textContent === 'That is not the token.'")
        sign_in(TOKEN)
        browser.until("location.pathname === '/' && document.getElementById('fps') !== null")
        browser.until(READ)
        assert browser.run("document.cookie") == ""
        browser.until("!document.getElementById('logout').hidden")
        browser.run("document.getElementById('logout').click()")
        browser.until("location.pathname === '/login'")


def test_on_a_phone_nothing_sticks_out(browser: Browser) -> None:
    with RunningPage(WebSettings(port=0, show_camera=True)) as page:
        browser.resize(360, 740, mobile=True)
        browser.open(page.url + "/")
        browser.until("document.querySelectorAll('#stages tr').length > 5")
        browser.run("document.querySelector('#views input[value=camera]').click()")
        browser.until("document.getElementById('picture').naturalWidth === 640")
        assert browser.run("document.documentElement.scrollWidth") <= 360
        assert browser.complaints == []


def test_every_control_has_a_name_for_those_who_do_not_see_it(browser: Browser) -> None:
    with RunningPage() as page:
        browser.open(page.url + "/")
        browser.until("document.querySelector('#backgrounds input') !== null")
        browser.send("Accessibility.enable")
        nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "radio", "slider", "switch", "image", "img", "link", "ColorWell"}
        nameless = [
            node["role"]["value"]
            for node in nodes
            if not node["ignored"]
            and node["role"]["value"] in roles
            and not node.get("name", {}).get("value")
        ]
        assert nameless == []
        assert len([node for node in nodes if node["role"].get("value") == "radio"]) >= 7
