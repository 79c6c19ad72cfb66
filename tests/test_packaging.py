"""What an installed package has must be what the checkout has."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


def test_every_folder_of_the_package_is_declared() -> None:
    declared = set(tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(file.parent.parts) for file in Path("edge_seg").rglob("__init__.py")}
    assert declared == found | {"edge_seg.models", "edge_seg.demo"}


@pytest.mark.timeout(300)
def test_a_wheel_carries_models_clip_and_compiled_kernels(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", "-w", tmp_path, "."],
        check=True, capture_output=True, timeout=280,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "edge_seg/models/selfie_landscape_int8.tflite",
        "edge_seg/models/selfie_general_int8.yaml",
        "edge_seg/models/NOTICE",
        "edge_seg/demo/person.mp4",
        "edge_seg/demo/ATTRIBUTION.md",
        "edge_seg/engine.py",
        "edge_seg/page/static/index.html",
        "edge_seg/page/static/page.js",
    ):
        assert needed in names, names
    compiled = {name.split(".")[0] for name in names if name.endswith(".so")}
    assert {f"edge_seg/{source.stem}" for source in Path("edge_seg").glob("_*.c")} <= compiled
