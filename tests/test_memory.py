import ctypes
import subprocess
import sys

import pytest

# 12 threads that all hold memory at once: with heaps of their own, each maps 64 MB of address space for it.
MEASURE = """
import sys, threading
from edge_seg import memory
if sys.argv[1] == "limited":
    assert memory.limit_arenas()
barrier = threading.Barrier(13)
def hold():
    kept = [bytes(1000) for _ in range(1000)]
    barrier.wait()
    barrier.wait()
threads = [threading.Thread(target=hold) for _ in range(12)]
for thread in threads: thread.start()
barrier.wait()
regions = open("/proc/self/maps").read().splitlines()
spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in regions]
print(len({start >> 26 for start, end in spans if start % (1 << 26) == 0}))
barrier.wait()
"""


def heaps(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", MEASURE, how], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has one heap for all")
def test_threads_share_few_heaps() -> None:
    assert heaps("limited") < heaps("free")
