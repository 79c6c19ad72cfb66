"""Runtimes and delegates: which one is used, and what happens to one that does not load."""

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edge_seg import runtime
from edge_seg.errors import ModelError
from edge_seg.model_card import DelegateSettings, ModelCard, ModelSettings
from edge_seg.runtime import Interpreter, Runtime, find_runtime
from edge_seg.segmenter import Segmenter
from edge_seg.types import I420
from tests.models_builder import TinyModel

CONTENT = TinyModel().to_bytes()


def install(monkeypatch: pytest.MonkeyPatch, *present: str) -> None:
    """Pretend that exactly these packages are installed."""

    def import_module(name: str) -> object:
        package = name.split(".")[0].replace("_", "-")
        if package not in present:
            raise ImportError(f"No module named {name!r}")
        return object()

    monkeypatch.setattr(runtime.importlib, "import_module", import_module)
    monkeypatch.setattr(runtime.importlib.metadata, "version", lambda package: "2.14.0")
    monkeypatch.setattr(runtime.np, "__version__", "1.26.4")


def test_ai_edge_litert_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "ai-edge-litert", "tflite-runtime")
    assert find_runtime().name == "ai-edge-litert 2.14.0"
    assert find_runtime("tflite").name == "tflite-runtime 2.14.0"


def test_tflite_runtime_is_taken_where_it_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tflite-runtime")
    assert find_runtime().kind == "tflite"


def test_without_a_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(ModelError, match="pip install ai-edge-litert or tflite-runtime"):
        find_runtime()
    with pytest.raises(ModelError, match="pip install tflite-runtime"):
        find_runtime("tflite")


def test_tflite_runtime_is_not_tried_with_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "tflite-runtime")
    monkeypatch.setattr(runtime.np, "__version__", "2.1.0")
    with pytest.raises(ModelError, match=r"needs NumPy 1, found 2\.1\.0"):
        find_runtime()


@pytest.mark.parametrize(
    ("kind", "machine", "slow"),
    [("tflite", "x86_64", True), ("tflite", "aarch64", False), ("litert", "x86_64", False)],
)
def test_slow_int8_is_known_beforehand(
    monkeypatch: pytest.MonkeyPatch, kind: str, machine: str, slow: bool
) -> None:
    monkeypatch.setattr(runtime.platform, "machine", lambda: machine)
    assert Runtime(kind, "x", None).slow_with_int8 is slow


def test_slow_int8_is_said_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Runtime, "slow_with_int8", property(lambda self: True))
    path = TinyModel(dtype="int8").write(tmp_path / "m.tflite")
    Segmenter(ModelCard(file=path), ModelSettings(threads=1), (8, 6))
    assert "ten times slower" in caplog.text


def test_a_model_runs() -> None:
    interpreter = Interpreter(CONTENT, ModelSettings(threads=1))
    view = interpreter.input_view(0)
    view[:] = 0.25
    del view
    interpreter.invoke()
    assert np.allclose(interpreter.output_view(0), 0.25)
    operators, _ = interpreter.operators()
    assert [op.name for op in operators] == ["CONV_2D"]
    assert operators[0].output_shapes == ((1, 6, 8, 1),)


def test_an_inference_that_fails_is_a_model_error() -> None:
    interpreter = Interpreter(CONTENT, ModelSettings(threads=1))
    view = interpreter.input_view(0)  # a live view makes invoke() fail
    with pytest.raises(ModelError, match="inference failed") as caught:
        interpreter.invoke()
    assert "\n" not in str(caught.value)
    assert view is not None


@pytest.fixture(scope="module")
def dummy_delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real shared object, but no delegate."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "dummy.c").write_text("int edge_seg_dummy(void) { return 1; }\n")
    library = folder / "libdummy.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "dummy.c"], check=True)
    return library


@pytest.fixture(scope="module")
def refusing_delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared object with the plugin interface of external delegates, whose hardware is not there."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "refusing.c").write_text(
        """#include <stddef.h>
        typedef void (*report_t)(const char *);
        void *tflite_plugin_create_delegate(char **keys, char **values, size_t n, report_t report)
        { (void)keys; (void)values; (void)n; report("no such device\\nplug it in"); return NULL; }
        void tflite_plugin_destroy_delegate(void *delegate) { (void)delegate; }
        """
    )
    library = folder / "librefusing.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "refusing.c"], check=True)
    return library


@pytest.mark.parametrize("which", ["missing", "dummy", "refusing"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_delegate_that_does_not_load_leaves_the_cpu_and_one_line(
    which: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    path = "libgone.so.1" if which == "missing" else str(request.getfixturevalue(f"{which}_delegate"))
    settings = ModelSettings(threads=1, delegates=(DelegateSettings(path, {"device": "usb:0"}),))
    with caplog.at_level(logging.WARNING):
        interpreter = Interpreter(CONTENT, settings)
    interpreter.invoke()
    assert interpreter.delegates == ()
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert path in message
    assert "runs on the CPU" in message
    assert "\n" not in message


@pytest.mark.parametrize("which", ["missing", "dummy", "refusing"])
def test_or_is_refused_where_the_configuration_says_so(which: str, request: pytest.FixtureRequest) -> None:
    path = "libgone.so.1" if which == "missing" else str(request.getfixturevalue(f"{which}_delegate"))
    settings = ModelSettings(threads=1, delegates=(DelegateSettings(path),), on_delegate_failure="refuse")
    with pytest.raises(ModelError) as caught:
        Interpreter(CONTENT, settings)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_mask_comes_from_the_cpu_after_a_failed_delegate(tmp_path: Path) -> None:
    card = ModelCard(file=TinyModel().write(tmp_path / "m.tflite"))
    settings = ModelSettings(threads=1, delegates=(DelegateSettings("libgone.so.1"),))
    with_delegate = Segmenter(card, settings, (8, 6))
    without = Segmenter(card, ModelSettings(threads=1), (8, 6))
    picture = I420.filled(32, 24, (100, 90, 200))
    assert with_delegate.delegates == ()
    assert (with_delegate.segment(picture) == without.segment(picture)).all()
