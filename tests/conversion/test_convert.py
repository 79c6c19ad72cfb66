"""`edge-seg convert` as a user meets it, checked with PyAV."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge_seg import cli
from edge_seg.conversion.writer import Writer
from tests import clips

pytest.importorskip("gi")

CLIP = Path(__file__).parents[2] / "config" / "demo" / "person.mp4"
ROOM = "background: {type: none}\n"
"""The room as it is: what nobody is in comes out as it went in."""


def sweep(seconds: float) -> clips.F32:
    """A tone that rises, so that no two packets are the same. Shape: (1, samples), at 48 kHz.

    In whole packets: of one that an MP4 file shows a part of only, qtdemux shows nothing.
    """
    t = np.arange(int(48000 * seconds / 1024) * 1024) / 48000
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)[None]


def person_clip(path: Path, frames: int, codec: str = "aac", width: int = 640, height: int = 480) -> Path:
    """The beginning of the bundled clip, with sound."""
    with av.open(str(CLIP)) as source, av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"crf": "18", "preset": "ultrafast", "bf": "2"}
        audio = container.add_stream(codec, rate=48000, layout="mono")
        for index, frame in enumerate(source.decode(video=0)):
            if index == frames:
                break
            copy = frame.reformat(width, height, "yuv420p")
            copy.pts, copy.time_base, copy.pict_type = index, Fraction(1, 30), av.video.frame.PictureType.NONE
            container.mux(video.encode(copy))
        container.mux(video.encode())
        clips.write_tone(container, audio, sweep(frames / 30))
    return path


def convert(*arguments: str | Path) -> int:
    return cli.main(["convert", *map(str, arguments)])


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def pictures_of(path: Path) -> list[clips.U8]:
    """Y, U and V of each frame below each other."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]


def sound_of(path: Path, lead_in: bool = False) -> tuple[str, list[tuple[float, bytes]]]:
    """The codec, and time and content of each packet, with or without what lies before the file's beginning."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [
            (float(packet.pts * stream.time_base), bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]
        return stream.codec_context.name, [(at, content) for at, content in packets if lead_in or at >= 0]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_every_frame_comes_out_at_its_time_with_the_person_and_the_sound(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = person_clip(tmp_path / "in.mp4", 40), tmp_path / f"out.{ending}"
    config = tmp_path / "c.yaml"
    config.write_text("background: {type: colour, colour: '#00ff00'}\n")
    assert convert(source, out, "--config", config) == 0
    assert "40 frames, 640x480" in capsys.readouterr().out
    np.testing.assert_allclose(times_of(out), times_of(source), atol=0.0006 if ending == "mkv" else 1e-5)
    (codec, before), (codec_after, after) = sound_of(source), sound_of(out)
    assert codec == codec_after == "aac"
    assert [content for _, content in before] == [content for _, content in after]
    np.testing.assert_allclose([at for at, _ in before], [at for at, _ in after], atol=0.0006)
    for picture, original in zip(pictures_of(out), pictures_of(source), strict=True):
        replaced = np.abs(picture[:480].astype(int) - 145) < 12  # luma of #00ff00, BT.601
        kept = np.abs(picture[:480].astype(int) - original[:480]) < 12
        assert replaced[:40, :40].mean() > 0.99
        assert 0.1 < replaced.mean() < 0.9
        assert (replaced | kept).mean() > 0.9
    assert not list(tmp_path.glob("*.partial"))


def test_the_same_recording_gives_the_same_pictures(tmp_path: Path) -> None:
    source = person_clip(tmp_path / "in.mp4", 12)
    (tmp_path / "c.yaml").write_text(f"background: {{type: video, path: {CLIP}}}\n")
    pictures = []
    for name in ("a.mkv", "b.mkv"):
        assert convert(source, tmp_path / name, "--config", tmp_path / "c.yaml") == 0
        pictures.append(pictures_of(tmp_path / name))
    for one, other in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one, other)
    # The background video keeps step with the picture: it moves.
    assert np.abs(pictures[0][0].astype(int) - pictures[0][11]).max() > 20


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
def test_a_variable_rate_keeps_its_times(tmp_path: Path, ending: str) -> None:
    pts = [0, 40, 50, 200, 260, 300, 700]
    source = clips.write_clip(tmp_path / "in.mkv", lambda i: clips.numbered(64, 48, i), len(pts), pts=pts)
    (tmp_path / "c.yaml").write_text(ROOM)
    out = tmp_path / f"out.{ending}"
    assert convert(source, out, "--config", tmp_path / "c.yaml") == 0
    np.testing.assert_allclose(np.array(times_of(out)) * 1000, pts, atol=0.6)
    assert [clips.number_of(picture[:48]) for picture in pictures_of(out)] == list(range(len(pts)))


def middle_of_quarters(picture: clips.U8, width: int, height: int) -> list[tuple[int, ...]]:
    planes = (
        picture[:height],
        picture[height : height + height // 4].reshape(height // 2, width // 2),
        picture[height + height // 4 :].reshape(height // 2, width // 2),
    )
    return [
        tuple(int(plane[int(plane.shape[0] * y), int(plane.shape[1] * x)]) for plane in planes)
        for y in (0.25, 0.75)
        for x in (0.25, 0.75)
    ]


def test_a_turned_phone_clip_comes_out_upright_and_says_nothing_of_turning(tmp_path: Path) -> None:
    source = clips.write_clip(tmp_path / "in.mp4", lambda _: clips.quarters(320, 240), 3)
    clips.turn_by_quarter(source)
    (tmp_path / "c.yaml").write_text(ROOM)
    assert convert(source, tmp_path / "out.mp4", "--config", tmp_path / "c.yaml") == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (240, 320, 0)
        picture = frame.to_ndarray(format="yuv420p")
    top_left, top_right, bottom_left, bottom_right = clips.COLOURS
    expected = (bottom_left, top_left, bottom_right, top_right)
    np.testing.assert_allclose(middle_of_quarters(picture, 240, 320), expected, atol=3)


@pytest.mark.parametrize(
    ("name", "size", "how", "space", "luma"),
    [
        ("odd.mkv", (321, 241), {"codec": "ffv1"}, 6, clips.COLOURS[0][0]),
        ("hd.mkv", (320, 240), {"colorspace": 1}, 1, clips.COLOURS[0][0]),
        ("sd.mkv", (320, 240), {"colorspace": 6}, 6, clips.COLOURS[0][0]),
        (
            "full.mkv",
            (320, 240),
            {"codec": "ffv1", "full_range": True, "colorspace": 5},
            6,
            16 + 81 * 219 / 255,
        ),
    ],
)
def test_colours_keep_their_matrix_and_odd_sizes_lose_their_last_pixel(
    tmp_path: Path, name: str, size: tuple[int, int], how: dict[str, object], space: int, luma: float
) -> None:
    source = clips.write_clip(tmp_path / name, lambda _: clips.quarters(*size), 2, **how)  # type: ignore[arg-type]
    (tmp_path / "c.yaml").write_text(ROOM)
    assert convert(source, tmp_path / "out.mp4", "--config", tmp_path / "c.yaml") == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == (320, 240)
        assert int(frame.colorspace) == space
        assert int(frame.color_range) == 1
        assert abs(int(frame.to_ndarray(format="yuv420p")[60, 80]) - luma) < 3


@pytest.mark.parametrize(
    ("codec", "container", "out", "after", "says"),
    [
        ("libopus", "in.mkv", "out.mp4", "opus", "Opus, copied"),
        ("flac", "in.mkv", "out.mkv", "flac", "FLAC, copied"),
        ("flac", "in.mkv", "out.mp4", "aac", "FLAC, encoded anew as AAC"),
        ("pcm_s16le", "in.mov", "out.mp4", "aac", "PCM, encoded anew as AAC"),
        ("mp3", "in.mp4", "out.mkv", "mp3float", "MP3, copied"),
    ],
)
def test_sound_that_the_container_does_not_take_is_encoded_anew(
    tmp_path: Path,
    codec: str,
    container: str,
    out: str,
    after: str,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = person_clip(tmp_path / container, 15, codec, 160, 120)
    assert convert(source, tmp_path / out) == 0
    assert says in capsys.readouterr().out
    name, packets = sound_of(tmp_path / out)
    assert name == after
    if "copied" in says:
        assert {content for _, content in packets} <= {
            content for _, content in sound_of(source, lead_in=True)[1]
        }
    assert packets[-1][0] > 0.4


def test_sound_is_waited_for_although_the_pictures_track_was_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader's thread stops behind the first track, and what it says on the bus is not heard meanwhile."""
    go_on = threading.Event()
    looks: list[int] = []
    on_part, look = Writer._on_part, Writer._look

    def slow_part(self: Writer, parts: Any, pad: Any) -> None:
        on_part(self, parts, pad)
        go_on.wait(10)

    def deaf_look(self: Writer, *arguments: Any, **named: Any) -> bool:
        looks.append(self._parts)
        if len(looks) - looks.count(0) < 2:  # the loop has seen one part, and has come again
            return False
        go_on.set()
        return look(self, *arguments, **named)

    monkeypatch.setattr(Writer, "_on_part", slow_part)
    monkeypatch.setattr(Writer, "_look", deaf_look)
    source = person_clip(tmp_path / "in.mkv", 5, "flac", 160, 120)
    assert convert(source, tmp_path / "out.mkv") == 0
    assert sound_of(tmp_path / "out.mkv")[0] == "flac"


def test_what_cannot_be_done_is_said_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = clips.write_clip(tmp_path / "in.mp4", lambda i: clips.numbered(64, 48, i), 3)
    there = tmp_path / "there.mp4"
    there.write_bytes(b"precious")
    sound = clips.write_sound(tmp_path / "sound.mp4")
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    for arguments, says in (
        ((source, source), "is the recording itself"),
        ((source, link), "is the recording itself"),
        ((source, tmp_path / "out.gif"), "expected a name that ends in .mp4, .m4v, .mov, .mkv, got '.gif'"),
        ((source, tmp_path / "out"), "got 'no ending'"),
        ((source, there), "is there already; --force replaces it"),
        ((source, tmp_path / "no" / "out.mp4"), "there is no folder"),
        ((tmp_path / "missing.mp4", tmp_path / "out.mp4"), "no such file"),
        ((sound, tmp_path / "out.mp4"), "holds no picture"),
    ):
        assert convert(*arguments) == 78, arguments
        assert says in capsys.readouterr().err
    assert there.read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "there.mp4", "sound.mp4", "link.mp4"}
    assert convert(source, there, "--force") == 0
    assert len(times_of(there)) == 3


def start(source: Path, out: Path) -> subprocess.Popen[str]:
    """A conversion that has begun to write."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_seg", "convert", str(source), str(out)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    partial = out.with_name(f"{out.name}.partial")
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    return process


def test_a_run_that_is_killed_leaves_nothing_under_the_name_and_the_next_one_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mp4"
    killed = start(CLIP, out)
    assert convert(CLIP, out) == 78
    assert "is being written by another process" in capsys.readouterr().err
    killed.kill()
    killed.communicate()
    assert not out.exists()
    short = person_clip(tmp_path / "short.mp4", 10)
    assert convert(short, out) == 0
    assert len(times_of(out)) == 10
    assert not list(tmp_path.glob("*.partial"))


def test_an_interrupted_run_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    process = start(CLIP, tmp_path / "out.mkv")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "interrupted after" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(small)]).returncode
    ):
        pytest.skip("a small tmpfs can be mounted by root only")
    try:
        assert convert(CLIP, small / "out.mp4") == 1
        assert "out.mp4.partial: the disk is full" in capfd.readouterr().err
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
