"""Recordings, read back with PyAV."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from edge_seg.errors import SinkError
from edge_seg.outputs import Outputs, OutputStatus, Patience
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.sinks.file import MB, FileOutputSettings, FileSink
from edge_seg.types import I420, Matrix
from tests import clips

pytest.importorskip("gi")

FPS = 30
FORMAT = OutputFormat(320, 240, Fraction(FPS), Matrix.BT601)
FRAME_NS = 1_000_000_000 // FPS


def numbered(index: int) -> I420:
    picture = I420.allocate(320, 240, Matrix.BT601)
    for plane, values in zip(picture.planes, clips.numbered(320, 240, index % 40), strict=True):
        np.copyto(plane, values)
    return picture


def noise(index: int, size: tuple[int, int] = (320, 240)) -> I420:
    """What costs an encoder many bits."""
    picture = I420.allocate(*size, Matrix.BT601)
    picture.buffer[:] = np.random.default_rng(index).integers(16, 235, picture.buffer.size, np.uint8)
    return picture


class Feeder:
    """Pushes numbered pictures, as many seconds of capture time as asked for and as fast as they are taken."""

    def __init__(self, sink: FileSink) -> None:
        self._sink = sink
        self._start_ns = time.monotonic_ns() + FRAME_NS
        self.index = 0

    def feed(self, seconds: float) -> None:
        for _ in range(round(seconds * FPS)):
            self._sink.push(numbered(self.index), self._start_ns + self.index * FRAME_NS)
            self.index += 1


def settings(folder: Path, ending: str = "mp4", **other: object) -> FileOutputSettings:
    values = {"gop_s": 0.5, "min_free_mb": 0, **other}
    return FileOutputSettings(path=f"{folder}/%Y-%m-%d_%H-%M-%S.{ending}", **values)  # type: ignore[arg-type]


def numbers_in(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [
            clips.number_of(frame.to_ndarray(format="yuv420p")[:240]) for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_files_follow_each_other_at_key_frames_without_a_gap(tmp_path: Path, ending: str) -> None:
    sink = FileSink(settings(tmp_path, ending, split_s=1))
    sink.open(FORMAT)
    Feeder(sink).feed(3.2)
    sink.close()
    sink.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
    assert len(files) == 4
    numbers = []
    for path in files:
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
            assert container.format.name.startswith("mov" if ending == "mp4" else "matroska")
        assert frames[0].key_frame
        times = np.array([frame.time for frame in frames])
        np.testing.assert_allclose(times, np.arange(len(frames)) / FPS, atol=0.002)
        numbers += numbers_in(path)
    assert numbers == [index % 40 for index in range(96)]


def test_a_limit_of_size_makes_another_file(tmp_path: Path) -> None:
    sink = FileSink(settings(tmp_path, split_mb=1, bitrate_kbps=8000, gop_s=0.2))
    sink.open(FORMAT)
    start_ns = time.monotonic_ns() + FRAME_NS
    for index in range(120):
        sink.push(noise(index), start_ns + index * FRAME_NS)
    sink.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) > 2
    assert max(sizes) <= MB


def test_the_oldest_files_go(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"not ours")
    for minute in range(5):
        old = tmp_path / f"2026-01-01_00-0{minute}-00.mp4"
        old.write_bytes(b"x")
        os.utime(old, (minute, minute))
    sink = FileSink(settings(tmp_path, keep_files=3))
    sink.open(FORMAT)
    sink.close()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [
        "2026-01-01_00-02-00.mp4",
        "2026-01-01_00-03-00.mp4",
        "2026-01-01_00-04-00.mp4",
        "holiday.mp4",
    ]


def test_another_size_begins_another_file(tmp_path: Path) -> None:
    sink = FileSink(settings(tmp_path))
    sink.open(FORMAT)
    feeder = Feeder(sink)
    feeder.feed(0.5)
    sink.reformat(OutputFormat(640, 480, Fraction(FPS), Matrix.BT601))
    start_ns = time.monotonic_ns() + FRAME_NS
    for index in range(15):
        sink.push(noise(index, (640, 480)), start_ns + index * FRAME_NS)
    sink.close()
    widths = set()
    for path in tmp_path.iterdir():
        with av.open(str(path)) as container:
            widths.add(container.streams.video[0].width)
    assert widths == {320, 640}


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_killed_recording_plays_up_to_its_last_seconds(tmp_path: Path, ending: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sinks.record", str(tmp_path / f"%Y-%m-%d_%H-%M-%S.{ending}")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "pushed 150\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (path,) = tmp_path.iterdir()
    numbers = numbers_in(path)
    # Up to a group of pictures (15 here) and a fragment (30) may be missing, and what was still being encoded.
    assert len(numbers) >= 150 - 15 - 30 - 10
    assert numbers == [index % 40 for index in range(len(numbers))]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]).returncode
    ):
        pytest.skip("a small tmpfs can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(sink: FileSink, frames: int) -> None:
    start_ns = time.monotonic_ns() + FRAME_NS
    for index in range(frames):
        sink.push(noise(index), start_ns + index * FRAME_NS)


def test_a_full_disk_is_an_error_what_was_recorded_plays_and_it_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    wanted = settings(small_disk, bitrate_kbps=8000)
    sink = FileSink(wanted)
    sink.open(FORMAT)
    with pytest.raises(SinkError, match=r"recording to .*: the disk is full") as caught:
        fill(sink, 2000)
    assert not caught.value.permanent
    sink.close()
    (path,) = small_disk.iterdir()
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 30
    path.unlink()
    again = FileSink(wanted)
    again.open(FORMAT)
    fill(again, 20)
    again.close()
    (path,) = small_disk.iterdir()
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20


class Counter(Sink):
    name = "counter"
    count = 0

    def open(self, output: OutputFormat) -> None:
        pass

    def reformat(self, output: OutputFormat) -> None:
        pass

    def push(self, picture: I420, captured_ns: int) -> None:
        self.count += 1

    def close(self) -> None:
        pass


def test_a_full_disk_stops_no_other_output_and_is_recorded_to_again_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    counter = Counter()
    outputs = Outputs(
        [settings(small_disk, bitrate_kbps=8000), counter],
        Patience(first_retry_s=0.05, longest_retry_s=0.2, steady_s=0.2),
    )
    outputs.reformat(FORMAT)
    pushed = 0

    def push_until(done: Callable[[], bool]) -> None:
        nonlocal pushed
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline, outputs.status()
            outputs.push(noise(pushed), time.monotonic_ns())
            outputs.tick()
            pushed += 1
            time.sleep(0.01)

    def recording() -> OutputStatus:
        return outputs.status()[0]

    push_until(lambda: recording().state == "retrying")
    assert "the disk is full" in str(recording().cause)
    before = counter.count
    push_until(lambda: counter.count > before + 30)
    for path in small_disk.iterdir():
        path.unlink()
    push_until(lambda: any("output file back after" in record.message for record in caplog.records))
    push_until(lambda: any(path.stat().st_size > 100_000 for path in small_disk.iterdir()))
    outputs.close()
    assert counter.count > 0.9 * pushed
    newest = max(small_disk.iterdir(), key=lambda path: path.stat().st_size)
    with av.open(str(newest)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 3
    lost = [record.message for record in caplog.records if "output file lost" in record.message]
    assert len(lost) == 1
    assert "the disk is full" in lost[0]


def test_it_stops_before_the_disk_is_full(small_disk: Path) -> None:
    sink = FileSink(settings(small_disk, min_free_mb=4))
    with pytest.raises(SinkError, match=r"only 3.1 MB are free on the disk of .*, outputs.min_free_mb is 4"):
        sink.open(FORMAT)
    assert list(small_disk.iterdir()) == []
    sink.close()


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    sink = FileSink(settings(tmp_path / "usb"))
    with pytest.raises(SinkError, match=r"there is no folder .*usb; make it, or mount its disk") as caught:
        sink.open(FORMAT)
    assert not caught.value.permanent
    sink.close()


def test_the_bit_rate_changes_without_another_file(tmp_path: Path) -> None:
    sink = FileSink(settings(tmp_path, bitrate_kbps=500))
    sink.open(FORMAT)
    feeder = Feeder(sink)
    feeder.feed(0.3)
    assert sink.adjust(settings(tmp_path, bitrate_kbps=1000))
    assert not sink.adjust(settings(tmp_path, bitrate_kbps=1000, split_s=5))
    feeder.feed(0.3)
    sink.close()
    assert len(list(tmp_path.iterdir())) == 1
