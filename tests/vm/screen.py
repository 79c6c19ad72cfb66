"""On the host: boots the guest with a display and looks at its screen whenever the guest asks.

.venv/bin/python -m tests.vm.screen
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.vm.guest_hdmi import PLACE_PX, places

NEAR, NEAR_ENOUGH = 8, 0.88
"""Code values by which a place may differ, and the share of places that must be so near: the guest's person is still,
but the number on its chest (7 % of the picture) is another in every frame, and the mask's edge is never quite still."""
TRIES = 3
DEVICE = "virtio-gpu-pci,xres=1280,yres=720,addr=0x10"


class Monitor:
    """QEMU's control socket."""

    def __init__(self, path: Path) -> None:
        deadline = time.monotonic() + 120
        while not path.exists():
            assert time.monotonic() < deadline, "QEMU did not start"
            time.sleep(0.1)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            if "return" in answer or "error" in answer:
                return answer

    def screen(self, file: Path) -> Any:
        """(H, W, 3), uint8, RGB."""
        answer = self.ask("screendump", filename=str(file), format="png")
        assert "error" not in answer, answer
        return cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)


def compare(monitor: Monitor, expected: dict[str, Any], file: Path) -> bool:
    """Looks until the screen is as expected; says how near it is."""
    display = expected["display"][0], expected["display"][1]
    wanted = np.array(expected["places"], float)
    share, shape = 0.0, (0, 0)
    for _ in range(TRIES):
        screen = monitor.screen(file)
        shape = screen.shape[1], screen.shape[0]
        if shape == display:
            seen = np.array(
                [screen[y : y + PLACE_PX, x : x + PLACE_PX].mean((0, 1)) for y, x in places(display)]
            )
            difference = np.abs(seen - wanted)
            share = float((difference.max(1) <= NEAR).mean())
            colours = len({tuple(value) for value in np.round(seen / 16)})
            if share >= NEAR_ENOUGH and colours > 4:  # the person, too, not only the background
                print(
                    f"SEEN {expected['scene']}: {len(wanted)} places of {shape[0]}x{shape[1]}, {colours} colours, "
                    f"{100 * share:.1f} % within {NEAR} of 255, difference {difference.mean():.2f} (mean), "
                    f"{difference.max():.1f} (most)",
                    flush=True,
                )
                return True
        time.sleep(0.5)
    print(
        f"NOT SEEN {expected['scene']}: screen {shape}, wanted {display}; {100 * share:.1f} % alike",
        flush=True,
    )
    return False


def main() -> int:
    script = Path(__file__).with_name("run.sh")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        control = folder / "qmp"
        process = subprocess.Popen(
            [str(script), "hdmi", "-device", DEVICE, "-qmp", f"unix:{control},server=on,wait=off"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "VM_STDIN": "1"},
        )
        assert process.stdin is not None
        assert process.stdout is not None
        monitor = None
        for line in process.stdout:
            if not line.startswith("LOOK "):
                print(line, end="", flush=True)
                continue
            monitor = monitor or Monitor(control)
            keep = Path(os.environ["VM_SCREENS"]) if "VM_SCREENS" in os.environ else folder
            expected = json.loads(line.removeprefix("LOOK "))
            file = keep / f"{expected['scene'].split(',')[0].replace(' ', '-')}.png"
            is_seen = compare(monitor, expected, file)
            process.stdin.write("seen\n" if is_seen else "not yet\n")
            process.stdin.flush()
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
