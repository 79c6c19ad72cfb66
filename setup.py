"""The C extensions. Everything else about the package is in pyproject.toml.

All are optional: where no compiler is found the package installs without them and the
NumPy/OpenCV references beside them are used (slower, same results).
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

root = Path(__file__).resolve().parent
sys.path.insert(0, str(root))  # where pip builds it, this folder is not on the path

from edge_seg import kernels  # noqa: E402

# The buffer protocol is part of the limited API from 3.11 on.
limited = sys.version_info >= (3, 11)
macros = [("Py_LIMITED_API", "0x030B0000")] if limited else []
folder = root / "edge_seg"


def extension(name: str) -> Extension:
    # -ffp-contract=off: where multiply-add is one instruction (arm64) the results would differ in the last bit.
    # -fno-wrapv: Python compiles with -fwrapv, under which GCC does not recognise a sum of absolute differences.
    return Extension(
        f"edge_seg._{name}",
        sources=[f"edge_seg/_{name}.c"],
        depends=[f"edge_seg/{file.name}" for file in kernels.sources(name, folder)],
        define_macros=[*macros, ("EDGE_SEG_SOURCES", f'"{kernels.digest(name, folder)}"')],
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
    ],
    # Files that are older than a kernel may still not be what it was made of.
    options={"build_ext": {"force": True}},
)
