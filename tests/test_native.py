"""The extensions as they are compiled for every machine against those that suit this one: equal to the last bit."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

import edge_seg
from edge_seg import composite, flow, fusion, matte, pyramid
from edge_seg.composite import composite as put
from edge_seg.pyramid import shrink
from edge_seg.types import I420, Mask, is_fitted

PACKAGE = Path(edge_seg.__file__).resolve().parent
GRID = (96, 54)


def baseline(name: str, folder: Path) -> ModuleType:
    """An extension without the choice between instruction sets."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    include = sysconfig.get_path("include")
    source, built = PACKAGE / f"_{name}.c", folder / f"_{name}.so"
    if compiler is None or not (Path(include) / "Python.h").is_file() or not source.is_file():
        pytest.skip("needs a C compiler, Python's headers and the sources of the package")
    flags = ["-shared", "-fPIC", "-O2", "-ftree-vectorize", "-fno-math-errno", "-fno-trapping-math"]
    subprocess.run(
        [compiler, *flags, "-DEDGE_SEG_BASELINE", f"-I{include}", str(source), "-o", str(built), "-lm"],
        check=True,
        timeout=120,
    )
    loader = ExtensionFileLoader(f"baseline._{name}", str(built))
    spec = spec_from_file_location(loader.name, str(built), loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def frames(count: int) -> list[tuple[I420, Mask]]:
    """A disc that moves over noise, and a soft mask of it."""
    rng = np.random.default_rng(8)
    room = I420.allocate(332, 188)
    for plane in room.planes:
        plane[:] = cv2.GaussianBlur(rng.integers(0, 256, plane.shape).astype(np.float32), (0, 0), 2) * 3 - 256
    drawn = []
    for index in range(count):
        picture = I420.allocate(room.width, room.height)
        for source, plane in zip(room.planes, picture.planes, strict=True):
            plane[:] = np.roll(source, index, axis=0)
            scale = plane.shape[1] / room.width
            centre = (round((120 + 7 * index) * scale), round(90 * scale))
            cv2.circle(plane, centre, round(50 * scale), 90 + 10 * index, -1)
        disc = np.zeros((GRID[1], GRID[0]), np.float32)
        cv2.circle(disc, ((122 + 7 * index) * GRID[0] // 332, 26), 14, 1.0, -1)
        soft = np.asarray(cv2.GaussianBlur(disc, (0, 0), 2), np.float32)
        drawn.append((picture, Mask(soft, index, index, 0)))
    return drawn


def results() -> list[bytes]:
    """Vectors, fused masks, mattes and pictures of a few frames."""
    fused, previous, moved, found = fusion.Fusion(), None, None, []
    for index, (picture, mask) in enumerate(frames(5)):
        small = shrink(picture, GRID)
        moved = None if previous is None else flow.estimate(previous.y, small.y, hint=moved)
        found += [plane.tobytes() for plane in (small.y, small.u, small.v)]
        fused.advance(None if previous is None else previous.y, small.y, moved, index, 0, (small.u, small.v))
        fused.observe(mask)
        target = fused.target()
        assert target is not None
        if moved is not None:
            found += [moved.vectors.tobytes(), moved.residual.tobytes(), moved.confidence.tobytes()]
        found.append(target.probability.tobytes())
        out = I420.filled(picture.width, picture.height, (16, 128, 128))
        back = I420.filled(picture.width, picture.height, (200, 90, 160))
        for quality in ("fast", "balanced", "best"):
            alpha = matte.refine(target, small, matte.MatteSettings(quality=quality))
            put(picture, alpha, back, out)
            gain = b"" if alpha.gain is None else np.where(is_fitted(alpha.offset), alpha.gain, 0).tobytes()
            found += [alpha.offset.tobytes(), gain]
            found += [plane.tobytes() for plane in out.planes]
        previous = small
    return found


def test_every_instruction_set_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("edge_seg._blend", reason="the extensions were not built")
    wide = results()
    modules = {
        name: baseline(name, tmp_path) for name in ("pyramid", "flow", "carry", "kalman", "matte", "blend")
    }
    monkeypatch.setattr(pyramid, "_native", modules["pyramid"].shrink)
    monkeypatch.setattr(flow, "_native", modules["flow"])
    for name in ("carry", "kalman"):
        monkeypatch.setattr(fusion, f"_{name}", modules[name])
    monkeypatch.setattr(matte, "kernel", modules["matte"].refine)
    monkeypatch.setattr(matte, "draw_out", modules["matte"].draw_out)
    monkeypatch.setattr(composite, "_native", modules["blend"])
    composite._layout.cache_clear()
    assert results() == wide
