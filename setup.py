"""The C extensions. Everything else about the package is in pyproject.toml.

All are optional: where no compiler is found the package installs without them and the
NumPy/OpenCV references beside them are used (slower, same results).
"""

import hashlib
import sys
from pathlib import Path

from setuptools import Extension, setup

# The buffer protocol is part of the limited API from 3.11 on.
limited = sys.version_info >= (3, 11)
macros = [("Py_LIMITED_API", "0x030B0000")] if limited else []
folder = Path(__file__).parent / "edge_seg"
headers = sorted(folder.glob("_*.h"))


def digest(name: str) -> str:
    """What an extension is built from, as edge_seg/kernels.py computes it."""
    parts = (file.read_bytes() for file in (folder / f"_{name}.c", *headers))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def extension(name: str) -> Extension:
    # -ffp-contract=off: where multiply-add is one instruction (arm64) the results would differ in the last bit.
    # -fno-wrapv: Python compiles with -fwrapv, under which GCC does not recognise a sum of absolute differences.
    return Extension(
        f"edge_seg._{name}",
        sources=[f"edge_seg/_{name}.c"],
        depends=[f"edge_seg/{header.name}" for header in headers],
        define_macros=[*macros, ("EDGE_SEG_SOURCES", f'"{digest(name)}"')],
        py_limited_api=limited,
        extra_compile_args=[
            "-O3",
            "-ffp-contract=off",
            "-fno-wrapv",
            "-fno-math-errno",
            "-fno-trapping-math",
            "-Wall",
            "-Wextra",
        ],
        optional=True,
    )


setup(
    ext_modules=[
        extension("pyramid"),
        extension("flow"),
        extension("carry"),
        extension("kalman"),
        extension("matte"),
        extension("blend"),
    ]
)
