"""The child process of one section: prints what it found as one line of JSON."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    section, root = sys.argv[1], Path(sys.argv[2])
    found = import_module(f"edge_seg.probe.{section}").find(root)
    sys.stdout.write("\n" + json.dumps(found, default=str) + "\n")


main()
