from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge_seg.sinks.retention import Naming, Piece, too_many

NOON_S = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))


def naming(folder: Path) -> Naming:
    return Naming(folder / "cam_%Y-%m-%d_%H-%M-%S.mp4")


def test_a_name_says_when_and_never_replaces_a_file(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = naming(tmp_path).new(NOON_S)
        path.touch()
        names.append(path.name)
    assert names == [
        "cam_2026-03-01_12-00-00.mp4", "cam_2026-03-01_12-00-00-2.mp4", "cam_2026-03-01_12-00-00-3.mp4",
    ]  # fmt: skip


def test_only_own_files_count_oldest_first(tmp_path: Path) -> None:
    ours = ["cam_2026-03-01_12-10-00.mp4", "cam_2026-03-01_12-00-00.mp4", "cam_2026-03-01_12-00-00-2.mp4"]
    for age, name in enumerate(ours):
        (tmp_path / name).write_bytes(b"x" * (age + 1))
        os.utime(tmp_path / name, (NOON_S - age, NOON_S - age))
    for name in (
        "holiday.mp4",
        "cam_last.mp4",
        "cam_2026-03-01_12-00-00.mkv",
        "xcam_2026-03-01_12-00-00.mp4",
    ):
        (tmp_path / name).touch()
    (tmp_path / "cam_2026-03-01_13-00-00.mp4").mkdir()
    (tmp_path / "cam_2026-03-01_14-00-00.mp4").symlink_to(tmp_path / "holiday.mp4")
    found = naming(tmp_path).pieces()
    assert [piece.path.name for piece in found] == ours[::-1]
    assert [piece.size for piece in found] == [3, 2, 1]


@pytest.mark.parametrize(
    ("keep_bytes", "keep_files", "current", "gone"),
    [
        (0, 0, "d", ""),
        (400, 0, "d", ""),
        (399, 0, "d", "a"),
        (250, 0, "d", "ab"),
        (1, 0, "d", "abc"),
        (0, 3, "d", "a"),
        (250, 3, "d", "ab"),
        (0, 1, "a", "bcd"),
    ],
)
def test_the_oldest_go_until_the_rest_is_within_the_limits(
    keep_bytes: int, keep_files: int, current: str, gone: str
) -> None:
    pieces = [Piece(Path(name), 100, float(index)) for index, name in enumerate("abcd")]
    found = too_many(pieces, Path(current), keep_bytes, keep_files)
    assert "".join(piece.path.name for piece in found) == gone
