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


# A block of a megabyte, over and over: how many pages the kernel had to clear for it.
FAULTS = """
import ctypes, resource, sys
from edge_seg import memory
if sys.argv[1] == "kept":
    assert memory.keep_freed()
libc = ctypes.CDLL(None)
if sys.argv[1] == "free":
    libc.mallopt(memory.M_TRIM_THRESHOLD, 1 << 17)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def use():
    block = libc.malloc(1 << 20)
    libc.memset(block, 1, 1 << 20)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library keeps what it keeps")
def test_freed_memory_is_used_again() -> None:
    def faults(how: str) -> int:
        run = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert faults("kept") < 100 < faults("free")
