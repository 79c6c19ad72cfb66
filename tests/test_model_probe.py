"""Unknown models are tried in a child process: what crashes there, what is remembered, what is said."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_seg import model_probe
from edge_seg.errors import ModelError
from edge_seg.model_card import DelegateSettings, ModelCard, ModelSettings, OutputCard, resolve_model
from edge_seg.model_probe import cache_dir, probe
from edge_seg.segmenter import open_segmenter
from tests.models_builder import TinyModel

SETTINGS = ModelSettings(threads=1)
SIZE = (32, 24)
SHIPPED = resolve_model("selfie_landscape_int8", SIZE).file.read_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    return tmp_path / "cache" / "edge-seg"


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The child processes that were started, by what came of them."""
    started: list[str] = []
    run = subprocess.run

    def recorded(*arguments: Any, **options: Any) -> Any:
        result = run(*arguments, **options)
        started.append(str(result.returncode))
        return result

    monkeypatch.setattr(model_probe.subprocess, "run", recorded)
    return started


def child_that(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for a child in which the runtime does something that no file at hand makes it do."""
    run = subprocess.run

    def replaced(command: list[str], **options: Any) -> Any:
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(model_probe.subprocess, "run", replaced)


def write(path: Path, model: TinyModel | bytes) -> ModelCard:
    file = path / "tiny.tflite"
    file.write_bytes(model if isinstance(model, bytes) else model.to_bytes())
    return ModelCard(file=file)


def test_a_good_model_is_tried_once(tmp_path: Path, children: list[str]) -> None:
    card = write(tmp_path, TinyModel())
    for _ in range(3):
        assert probe(card, SETTINGS, SIZE) == SETTINGS
    assert children == ["0"]


@pytest.mark.parametrize(
    "change",
    [
        lambda card, settings: (write(card.file.parent, TinyModel(bias=(0.5,))), settings),
        lambda card, settings: (card, replace(settings, threads=2)),
        lambda card, settings: (replace(card, output=OutputCard(meaning="logits")), settings),
    ],
)
def test_what_matters_is_tried_again(
    tmp_path: Path, children: list[str], change: Callable[..., tuple[ModelCard, ModelSettings]]
) -> None:
    card = write(tmp_path, TinyModel())
    probe(card, SETTINGS, SIZE)
    probe(*change(card, SETTINGS), SIZE)
    assert len(children) == 2


def test_a_failure_is_not_remembered(tmp_path: Path, children: list[str]) -> None:
    card = write(tmp_path, TinyModel(head="custom"))
    for _ in range(2):
        with pytest.raises(ModelError):
            probe(card, SETTINGS, SIZE)
    assert len(children) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir(mode=0o500)
    probe(write(tmp_path, TinyModel()), SETTINGS, SIZE)


def test_a_cache_that_is_no_folder_is_done_without(tmp_path: Path, cache: Path, children: list[str]) -> None:
    cache.parent.write_text("a file where the folder should be")
    card = write(tmp_path, TinyModel())
    probe(card, SETTINGS, SIZE)
    probe(card, SETTINGS, SIZE)
    assert children == ["0", "0"]


def test_the_cache_is_where_systemd_or_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/edge-seg:/var/cache/other")
    assert cache_dir() == Path("/var/cache/edge-seg")
    monkeypatch.delenv("CACHE_DIRECTORY")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_dir() == Path("/home/somebody/.cache/edge-seg")


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a TensorFlow Lite model"),
    "text": (b"# a text file that was renamed\n" * 40, "not a TensorFlow Lite model"),
    "random": (bytes(range(256)) * 64, "not a TensorFlow Lite model"),
    "random behind a good header": (SHIPPED[:8] + bytes(range(1, 256)) * 64, "refuses the model"),
    "cut in half": (SHIPPED[: len(SHIPPED) // 2], "refuses the model"),
    "last kilobyte missing": (SHIPPED[:-1024], "refuses the model"),
    "cut after the header": (SHIPPED[:8], "refuses the model"),
    "zeros in the middle": (SHIPPED[:200_000] + bytes(20_000) + SHIPPED[220_000:], "refuses the model"),
    "wrong version": (TinyModel(version=2).to_bytes(), "schema version 2"),
    "custom operator": (TinyModel(head="custom").to_bytes(), "NobodyHasThisOp"),
    "huge input": (TinyModel(size=(30_000, 30_000)).to_bytes(), "1x30000x30000x3 float32): too large"),
    "weights for two channels": (TinyModel(weights=((1, 1),)).to_bytes(), "refuses the model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, said = BROKEN[name]
    card = write(tmp_path, content)
    with pytest.raises(ModelError) as caught:
        open_segmenter(replace(SETTINGS, file=str(card.file), card=card), SIZE)
    message = str(caught.value)
    assert message.startswith(str(card.file))
    # What one runtime refuses in words can crash the other: that is what the child is for.
    crashed = "the runtime crashes on it (SIG" in message and said == "refuses the model"
    assert said in message or crashed
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("name", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL])
def test_a_crash_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: signal.Signals
) -> None:
    child_that(f"import os; os.kill(os.getpid(), {int(name)})", monkeypatch)
    with pytest.raises(ModelError, match=f"the runtime crashes on it \\({name.name}\\)"):
        probe(write(tmp_path, TinyModel()), SETTINGS, SIZE)


def test_a_model_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child_that("while True: pass", monkeypatch)
    with pytest.raises(ModelError, match="no first inference within"):
        probe(write(tmp_path, TinyModel()), SETTINGS, SIZE, timeout_s=0.2)


def test_an_exception_nobody_thought_of_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_that("raise KeyError('what is this')", monkeypatch)
    with pytest.raises(ModelError, match=r"failed in a child process \(status 1\): KeyError") as caught:
        probe(write(tmp_path, TinyModel()), SETTINGS, SIZE)
    assert "\n" not in str(caught.value)


def test_a_delegate_that_crashes_leaves_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code = "import os, sys; b'crashing' in sys.stdin.buffer.read() and os.abort()"
    child_that(code, monkeypatch)
    settings = replace(SETTINGS, delegates=(DelegateSettings("libcrashing.so.1"),))
    card = write(tmp_path, TinyModel())
    assert probe(card, settings, SIZE) == SETTINGS
    assert "SIGABRT" in caplog.text
    assert "runs on the CPU" in caplog.text
    with pytest.raises(ModelError, match="SIGABRT"):
        probe(card, replace(settings, on_delegate_failure="refuse"), SIZE)
