"""How fast `edge-seg convert` is, on the bundled clip scaled to a size, with a track of sound.

    .venv/bin/python -m benchmarks.conversion [--size 1280x720] [--rounds 3]

Prints frames a second of the whole command, the start of Python and the model included, and what the stages took.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conversion.test_convert import person_clip

FRAMES = 298


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        source = person_clip(Path(folder) / "in.mp4", FRAMES, width=width, height=height)
        for number in range(arguments.rounds):
            before = os.times()
            said = subprocess.run(
                [sys.executable, "-m", "edge_seg", "convert", str(source), f"{folder}/{number}.mp4"],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            after = os.times()
            cpu_s = (
                after.children_user + after.children_system - before.children_user - before.children_system
            )
            found = re.search(r"in ([\d.]+) s \(([\d.]+) a second\)", said)
            assert found is not None, said
            print(
                f"{arguments.size}, {FRAMES} frames: {found[2]} frames a second, "
                f"{1000 * cpu_s / FRAMES:.1f} ms of CPU a frame, load {os.getloadavg()[0]:.1f}"
            )


if __name__ == "__main__":
    main()
