"""A recording in a process of its own, to be killed: `python -m tests.sinks.record PATTERN`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edge_seg.sinks.file import FileSink
from tests.sinks.test_file import FORMAT, Feeder, settings

if __name__ == "__main__":
    pattern = Path(sys.argv[1])
    sink = FileSink(settings(pattern.parent, pattern.suffix[1:]))
    sink.open(FORMAT)
    Feeder(sink).feed(5)
    while sink._source.get_property("current-level-buffers"):
        time.sleep(0.01)
    print("pushed 150", flush=True)
    time.sleep(60)
