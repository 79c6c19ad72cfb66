"""In the guest: the engine shows a drawn person on a real KMS display (virtio-gpu); the host looks at its screen.

Between two scenes it says what should be seen, as the mean colours of a grid of places, and waits for the host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from edge_seg import slate
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.config import Config, LatencySettings, PrivacySettings
from edge_seg.engine import Engine
from edge_seg.errors import SinkError
from edge_seg.model_card import ModelSettings
from edge_seg.probe import displays
from edge_seg.sinks import HdmiSettings, OutputFormat, open_sink
from edge_seg.sinks.base import Sink
from edge_seg.sources import SyntheticSettings
from edge_seg.types import I420, Matrix
from tests.vm.rig import set_up, wait

GRID, PLACE_PX = (16, 9), 8
LOOKS = 20
BACKGROUND = "#206030"
STATUS = Path("/sys/class/drm/card0-Virtual-1/status")
HOLDER = "import os, sys; os.open('/dev/dri/card0', os.O_RDWR); print('held', flush=True); sys.stdin.read()"


class Shown(Sink):
    """A monitor, and what it was last given."""

    name = "hdmi"
    retry_s = 2.0

    def __init__(self, settings: HdmiSettings) -> None:
        self._settings = settings
        self._sink: Sink | None = None
        self.frames = 0
        self.opened = 0
        self.problem = ""
        self.last: I420 | None = None

    def open(self, output: OutputFormat) -> None:
        self._sink = open_sink(self._settings)
        try:
            self._sink.open(output)
        except SinkError as error:
            self.problem = str(error)
            raise
        self.opened += 1

    def reformat(self, output: OutputFormat) -> None:
        assert self._sink is not None
        self._sink.reformat(output)

    def push(self, picture: I420, captured_ns: int) -> None:
        assert self._sink is not None
        try:
            self._sink.push(picture, captured_ns)
        except SinkError as error:
            self.problem = str(error)
            raise
        if abs(float(np.median(picture.y)) - slate.LUMA) > 2:  # else it is the card of before the first frame
            self.last, self.frames = picture, self.frames + 1

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()


@contextmanager
def showing(width: int, height: int, settings: HdmiSettings) -> Iterator[Shown]:
    """The engine with this output, before a green background."""
    sink = Shown(settings)
    config = Config(
        source=SyntheticSettings(width=width, height=height, fps=2, stale_ms=20_000, motion="still", noise=0),
        # Emulated, a model takes seconds: its mask may be old.
        model=ModelSettings(probe=False),
        latency=LatencySettings(budget_ms=2000),
        privacy=PrivacySettings(max_mask_age_ms=60_000),
        background=BackgroundSettings(type="colour", colour=BACKGROUND),
    )
    engine = Engine(config, sinks=[sink])
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    try:
        yield sink
    finally:
        stop.set()
        thread.join(20)
        print(engine.status().outputs, flush=True)


def grid(picture: I420, display: tuple[int, int]) -> list[list[int]]:
    """Red, green, blue at the middle of each place of a grid, on a display of this size; by another way than ours."""
    flat = np.concatenate([plane.reshape(-1) for plane in picture.planes]).reshape(-1, picture.width)
    ycc = flat[: picture.height].astype(np.float32)
    u, v = (
        cv2.resize(p, (picture.width, picture.height)).astype(np.float32) - 128 for p in picture.planes[1:]
    )
    y = (ycc - 16) * (255 / 219)
    kr, kb = (0.2126, 0.0722) if picture.matrix is Matrix.BT709 else (0.299, 0.114)
    red, blue = y + 2 * (1 - kr) * v * (255 / 224), y + 2 * (1 - kb) * u * (255 / 224)
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    rgb = np.clip(np.dstack([red, green, blue]), 0, 255)
    scale = min(display[0] / picture.width, display[1] / picture.height)
    size = round(picture.width * scale), round(picture.height * scale)
    screen = np.zeros((display[1], display[0], 3), np.float32)
    left, top = (display[0] - size[0]) // 2, (display[1] - size[1]) // 2
    screen[top : top + size[1], left : left + size[0]] = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    return [
        [round(float(value)) for value in screen[y : y + PLACE_PX, x : x + PLACE_PX].mean((0, 1))]
        for y, x in places(display)
    ]


def places(display: tuple[int, int]) -> list[tuple[int, int]]:
    """Top left corners of the places that are compared."""
    columns, rows = GRID
    return [
        ((2 * row + 1) * display[1] // (2 * rows), (2 * column + 1) * display[0] // (2 * columns))
        for row in range(rows)
        for column in range(columns)
    ]


def look(scene: str, sink: Shown, display: tuple[int, int]) -> None:
    """Tells the host what should be on its screen, and waits until it has looked. Again, while the mask settles."""
    for _ in range(LOOKS):
        assert sink.last is not None
        report = {"scene": scene, "display": display, "places": grid(sink.last, display)}
        print("LOOK", json.dumps(report), flush=True)
        if sys.stdin.readline().strip() == "seen":
            return
        time.sleep(2)
    raise AssertionError(f"the host does not see {scene}")


def refusal(picture: I420 | None) -> str:
    """What a second output says while the first has the display."""
    assert picture is not None
    sink = open_sink(HdmiSettings())
    try:
        sink.open(OutputFormat(640, 360, Fraction(10), picture.matrix))
    except SinkError as error:
        return str(error)
    finally:
        sink.close()
    return "it was opened"


def main() -> None:
    set_up()
    wait(lambda: Path("/dev/dri/card0").exists(), "/dev/dri/card0")
    found = displays.find(Path("/"))["displays"]
    print("probe:", found, flush=True)
    assert [(one["connector"], one["status"]) for one in found] == [("Virtual-1", "connected")]
    assert found[0]["output"] == {"type": "hdmi", "connector": "Virtual-1"}

    with showing(640, 480, HdmiSettings()) as sink:
        wait(lambda: sink.frames >= 15, "15 frames on the display", 240)
        look("640x480", sink, (640, 480))
        said = refusal(sink.last)
        print("a second program:", said, flush=True)
        assert "another program shows its picture" in said
        STATUS.write_text("off")
        wait(lambda: "unplugged" in sink.problem, "unplugged: noticed after", 20)
        time.sleep(3)
        STATUS.write_text("detect")
        wait(lambda: sink.opened == 2, "plugged in: open again after", 30)
        frames = sink.frames
        wait(lambda: sink.frames >= frames + 5, "and 5 frames after", 60)
        look("after unplugging", sink, (640, 480))

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with showing(640, 360, HdmiSettings(connector="Virtual-1", mode="1024x768")) as sink:
        wait(
            lambda: "another program" in sink.problem,
            "the display is held by another program: said after",
            120,
        )
        holder.kill()
        holder.wait()
        wait(lambda: sink.frames >= 15, "it ended: 15 frames on the display after", 120)
        look("640x360 on 1024x768", sink, (1024, 768))
    with showing(640, 360, HdmiSettings(mode="1280x720", driver_name="virtio_gpu")) as sink:
        wait(lambda: sink.frames >= 15, "15 frames on the display", 120)
        look("640x360 on 1280x720, by the driver's name", sink, (1280, 720))
    print("all is well", flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
