"""A kernel that was built from other sources than those beside it is an error with one line, not one of types."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_seg import kernels
from edge_seg.errors import StaleKernel

NAMES = sorted(source.stem[1:] for source in kernels.PACKAGE.glob("_*.c"))


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A folder whose _flow.c has one line more, and no other extension's sources."""
    for file in (*kernels.PACKAGE.glob("_*.h"), kernels.PACKAGE / "_flow.c"):
        shutil.copy(file, tmp_path)
    with (tmp_path / "_flow.c").open("a") as source:
        source.write("/* newer */\n")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_what_setup_built_belongs_to_its_sources(name: str) -> None:
    module = pytest.importorskip(f"edge_seg._{name}", reason="the extension was not built")
    assert kernels.load(name) is module
    assert kernels.digest(name, kernels.PACKAGE) == module.SOURCES


def test_newer_sources_are_an_error_that_says_what_to_do(
    changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("edge_seg._flow", reason="the extension was not built")
    monkeypatch.setattr(kernels, "PACKAGE", changed)
    with pytest.raises(StaleKernel, match=r"_flow.*make setup"):
        kernels.load("flow")


def test_headers_that_are_included_count_too_and_no_others(changed: Path) -> None:
    before = kernels.digest("flow", changed)
    (changed / "_another.h").write_text("#define ANOTHER\n")
    assert kernels.digest("flow", changed) == before
    (changed / "_buffers.h").write_text("#define NEWER\n")  # by _flow_picture.h
    assert kernels.digest("flow", changed) not in (before, None)


def test_installed_without_sources_there_is_nothing_to_compare(
    changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("edge_seg._matte", reason="the extension was not built")
    monkeypatch.setattr(kernels, "PACKAGE", changed)
    assert kernels.load("matte") is module


def test_one_that_was_not_built_is_none() -> None:
    assert kernels.load("nowhere") is None


def test_one_that_does_not_load_is_said_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> None:
        raise ImportError(f"{name}: undefined symbol")

    monkeypatch.setattr(kernels, "import_module", broken)
    assert kernels.load("flow") is None
    assert "undefined symbol" in caplog.text


def test_a_command_says_it_in_one_line(changed: Path) -> None:
    pytest.importorskip("edge_seg._flow", reason="the extension was not built")
    code = (
        "import sys, pathlib; from edge_seg import cli, kernels; kernels.PACKAGE = pathlib.Path(sys.argv[1]);"
        " sys.exit(cli.main(['check', 'config/edge-seg.yaml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(changed)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("edge-seg: ")
    assert done.stderr.count("\n") == 1
    assert "make setup" in done.stderr
