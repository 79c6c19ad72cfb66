"""A headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import websocket

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
START_TIMEOUT_S = 40


def program() -> str | None:
    """Where Chromium is; None where it is not."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Navigated(Exception):
    """The page went away while it was asked something."""


class Browser:
    """One tab. Use as a context manager."""

    def __init__(self, folder: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """`folder` is for the profile and must be empty or new."""
        self._folder = folder
        self._size = width, height
        self._scheme = scheme
        self._number = 0
        self.complaints: list[str] = []
        """What the console was told, exceptions that nobody caught, and requests that failed."""

    def __enter__(self) -> Browser:
        found = program()
        assert found is not None
        self._process = subprocess.Popen(
            [found, *FLAGS, f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self._connect()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._end()

    def _connect(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        port_file = self._folder / "DevToolsActivePort"
        while True:
            assert time.monotonic() < deadline_s, "Chromium did not start"
            if port_file.exists() and (lines := port_file.read_text().splitlines()):
                break
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as answer:
            tabs = json.load(answer)
        url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self._socket = websocket.create_connection(url, suppress_origin=True, timeout=30)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(*self._size)
        self.send(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": self._scheme}]
        )

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def send(self, method: str, **parameters: Any) -> Any:
        """One command; returns its result. Notes complaints that come meanwhile."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise Navigated(message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        what, parameters = message.get("method"), message.get("params", {})
        if what == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(f"console: {parameters['args']}")
        elif what == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {parameters['exceptionDetails']}")
        elif what == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"log: {parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' || document.images.length > 0")

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, timeout_s: float = 20, accept: Callable[[Any], bool] = bool) -> Any:
        """The value of the expression once it is accepted."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                value = self.run(script)
            except Navigated as error:
                value = error
            else:
                if accept(value):
                    return value
            assert time.monotonic() < deadline_s, f"{script} is still {value!r}; {self.complaints}"
            time.sleep(0.05)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """PNG; of the whole page, however long, or of what the window shows."""
        result = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(result["data"])
