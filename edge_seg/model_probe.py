"""Try a model that was never seen before in a child process first.

The runtimes are C++ and trust the file: a damaged one can end in a segmentation fault, an abort or an
allocation of all the memory there is. In the child that costs a line in the log; in the daemon, the daemon.
What passed once is remembered in the cache by the hash of everything that mattered, so that it costs one
start of Python per new model, runtime or delegate.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from edge_seg.errors import ModelError
from edge_seg.model_card import ModelCard, ModelSettings, read_model
from edge_seg.runtime import find_runtime

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0
"""For the start of Python, the load and one inference, on a slow board with a large model."""

MIN_CHILD_BYTES = 3 << 30
"""Address space that Python, NumPy and a runtime's threads reserve, with room for a model."""

_Request = tuple[ModelCard, ModelSettings, tuple[int, int]]
_REQUEST: TypeAdapter[_Request] = TypeAdapter(_Request)


def cache_dir() -> Path:
    """Where results are remembered: systemd's CacheDirectory=, or the user's cache."""
    from_systemd = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if from_systemd:
        return Path(from_systemd)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: relative paths are invalid and to be ignored.
    base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    return base / "edge-seg"


def probe(
    card: ModelCard, settings: ModelSettings, picture_size: tuple[int, int], timeout_s: float = TIMEOUT_S
) -> ModelSettings:
    """Load and run the model in a child process unless that is known to go well; raise ModelError if not.

    The settings that went well come back: without delegates, where those crashed and the CPU may stand in.
    """
    content = read_model(card)
    try:
        _try_once(card, settings, picture_size, content, timeout_s)
    except ModelError as error:
        if not settings.delegates or settings.on_delegate_failure == "refuse":
            raise
        on_cpu = replace(settings, delegates=())
        _try_once(card, on_cpu, picture_size, content, timeout_s)
        log.warning("%s; that was with the delegates: the model runs on the CPU", error)
        return on_cpu
    return settings


def _try_once(
    card: ModelCard,
    settings: ModelSettings,
    picture_size: tuple[int, int],
    content: bytes,
    timeout_s: float,
) -> None:
    request = _REQUEST.dump_json((card, replace(settings, card=None), picture_size))
    mark = _mark(content, request, settings)
    if mark is not None and mark.is_file():
        return
    _run_child(card, request, timeout_s)
    if mark is None:
        return
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        log.debug("%s: the probe of the model is not remembered: %s", mark, error)


def _mark(content: bytes, request: bytes, settings: ModelSettings) -> Path | None:
    """The empty file whose existence says that it went well once; None where there is no home for it."""
    runtime = find_runtime(settings.runtime).name
    parts = (content, request, runtime.encode(), platform.machine().encode(), sys.version.encode())
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    try:
        return cache_dir() / "models" / digest
    except RuntimeError:  # no home directory
        return None


def _run_child(card: ModelCard, request: bytes, timeout_s: float) -> None:
    package_root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (package_root, os.environ.get("PYTHONPATH", "")) if part)
    try:
        child = subprocess.run(
            [sys.executable, "-m", "edge_seg.model_probe"],
            input=request,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{card.file}: no first inference within {timeout_s:.0f} s, tried in a child"
        ) from None
    except OSError as error:
        log.warning("the model is not tried in a child process first: %s", error)
        return
    if child.returncode == 0:
        return
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ModelError(f"{card.file}: the runtime crashes on it ({name}), tried in a child process")
    with suppress(ValueError, IndexError, KeyError):
        raise ModelError(json.loads(child.stdout.splitlines()[-1])["error"])
    said = child.stderr.decode(errors="replace").split("\n")
    last = next((line for line in reversed(said) if line.strip()), "no message")
    raise ModelError(f"{card.file}: failed in a child process (status {child.returncode}): {last:.200}")


def _limit_child() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = max(MIN_CHILD_BYTES, memory)
    if sys.maxsize > 2**32 and (hard == resource.RLIM_INFINITY or wanted < hard):
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the child goes first, not the daemon


def main() -> int:
    """The child: a request on standard input; an error as one line of JSON on standard output, status 3."""
    # Only the child needs them, and the segmenter imports this module.
    import numpy as np

    from edge_seg.pyramid import Yuv444
    from edge_seg.segmenter import Segmenter
    from edge_seg.types import Matrix

    _limit_child()
    card, settings, picture_size = _REQUEST.validate_json(sys.stdin.buffer.read())
    try:
        segmenter = Segmenter(card, settings, picture_size)
        width, height = segmenter.input_size
        gray = np.full((height, width), 128, np.uint8)
        mask = segmenter.infer(Yuv444(gray, gray, gray, Matrix.BT709))
        if not np.isfinite(mask).all():
            raise ModelError(f"{card.file}: the mask is not finite")
    except (ModelError, MemoryError) as error:
        print(json.dumps({"error": str(error) or f"{card.file}: not enough memory for it"}))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
