from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_seg.errors import ConfigError
from edge_seg.target import Target


def test_the_name_is_there_only_when_it_is_finished(tmp_path: Path) -> None:
    with Target(tmp_path / "a") as target:
        target.partial.write_bytes(b"whole")
        assert not (tmp_path / "a").exists()
        target.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_what_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with Target(tmp_path / "a") as target:
        target.partial.write_bytes(b"half")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_came_meanwhile_is_not_replaced_unasked(tmp_path: Path) -> None:
    with Target(tmp_path / "a") as target:
        (tmp_path / "a").write_bytes(b"other")
        with pytest.raises(ConfigError, match="is there already"):
            target.write(b"ours")
    assert (tmp_path / "a").read_bytes() == b"other"


def test_two_do_not_write_the_same_file(tmp_path: Path) -> None:
    with (
        Target(tmp_path / "a"),
        pytest.raises(ConfigError, match="by another process"),
        Target(tmp_path / "a"),
    ):
        pass


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"before")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with Target(tmp_path / "link", overwrite=True) as target:
        target.write(b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"after"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"), Target(tmp_path / "a"):
        pass
