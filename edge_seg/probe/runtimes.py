"""TensorFlow Lite runtimes and what they stand on, each tried: an import alone proves nothing."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

from edge_seg.probe import Report, read_text

RUNTIMES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
DELEGATES = {
    "Coral Edge TPU": "libedgetpu.so.1",
    "Arm NN": "libarmnnDelegate.so",
    "Hexagon (QNN)": "libQnnTFLiteDelegate.so",
    "external GPU": "libtensorflowlite_gpu_delegate.so",
}
TRIAL = """
import sys, importlib
from pathlib import Path
module = importlib.import_module(sys.argv[1])
interpreter = module.Interpreter(model_content=Path(sys.argv[2]).read_bytes(), num_threads=1)
interpreter.allocate_tensors()
interpreter.invoke()
"""
TRIAL_TIMEOUT_S = 30


def find(root: Path) -> Report:
    """runtimes: package, version, works, problem, in_use, warning; libraries: NumPy and OpenCV; delegates;
    missing."""
    missing: list[dict[str, str]] = []
    runtimes = [_runtime(package, module) for package, module in RUNTIMES.items()]
    mark_the_one_in_use(runtimes)
    if not any(runtime["works"] for runtime in runtimes):
        missing.append(
            {
                "what": "a TensorFlow Lite runtime",
                "why": "the mask model cannot run without one",
                "command": f"{sys.executable} -m pip install {_advised_runtime()}",
            }
        )
    libraries = [_numpy(missing), _opencv(missing)]
    delegates = [{"name": name, "library": library} for name, library in DELEGATES.items() if _loads(library)]
    kernels = [entry.name for entry in sorted((root / "dev").glob("apex_*"))]
    if kernels and not any(delegate["library"] == "libedgetpu.so.1" for delegate in delegates):
        missing.append(
            {
                "what": "libedgetpu.so.1",
                "why": f"/dev/{kernels[0]} is a Coral Edge TPU",
                "command": "sudo apt install libedgetpu1-std (from Coral's repository)",
            }
        )
    return {"runtimes": runtimes, "libraries": libraries, "delegates": delegates, "missing": missing}


def _advised_runtime() -> str:
    return "tflite-runtime" if "armv7" in read_text(Path("/proc/cpuinfo")).lower() else "ai-edge-litert"


def _runtime(package: str, module: str) -> Report:
    from edge_seg.model_card import models_dir, shipped_models

    version = _version(package)
    if version is None:
        return {"package": package, "version": None, "works": False, "problem": "not installed"}
    model = models_dir() / f"{shipped_models()[0]}.tflite"
    problem = None
    try:
        child = subprocess.run(
            [sys.executable, "-c", TRIAL, module, str(model)],
            capture_output=True,
            timeout=TRIAL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    else:
        if child.returncode:
            problem = explain(child.stderr.decode(errors="replace"), child.returncode)
    return {
        "package": package,
        "version": version,
        "works": problem is None,
        **({"problem": problem} if problem else {}),
    }


def mark_the_one_in_use(runtimes: list[Report]) -> None:
    """The first that works is what `model.runtime: auto` takes. Says so, and whether int8 is slow on it."""
    from edge_seg.runtime import Runtime

    for runtime in runtimes:
        if runtime["works"]:
            runtime["in_use"] = True
            kind = "tflite" if runtime["package"] == "tflite-runtime" else "litert"
            if Runtime(kind, runtime["package"], None).slow_with_int8:
                runtime["warning"] = "int8 models are ten times slower on it than on ai-edge-litert here"
            return


def explain(complaint: str, status: int) -> str:
    """One line on why a runtime does not run, from what its child process said."""
    if "_ARRAY_API" in complaint or "numpy.core.multiarray failed" in complaint or "NumPy 1.x" in complaint:
        return (
            "was built for NumPy 1 and NumPy 2 is installed: `pip install 'numpy<2'`, or use ai-edge-litert"
        )
    lines = [line for line in complaint.splitlines() if line.strip()]
    if status < 0:
        return f"crashes (signal {-status})"
    return lines[-1].strip() if lines else f"failed with status {status}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numpy(missing: list[dict[str, str]]) -> Report:
    try:
        import numpy as np
    except ImportError as error:
        command = f"{sys.executable} -m pip install numpy"
        missing.append({"what": "NumPy", "why": str(error), "command": command})
        return {"name": "NumPy", "version": None}
    found: Report = {"name": "NumPy", "version": np.__version__}
    # Compiled against the NumPy of the distribution: with another major one they cannot be imported.
    for module in ("simplejpeg", "picamera2"):
        if importlib.util.find_spec(module) is None:
            continue
        try:
            importlib.import_module(module)
        except (ImportError, ValueError, AttributeError, OSError, RuntimeError) as error:
            found["problem"] = f"{module} cannot be loaded: {error}"
            if "dtype size changed" in str(error):
                command = f"{sys.executable} -m pip install 'numpy<2'"
                missing.append({"what": "NumPy 1", "why": f"{module} was built for it", "command": command})
    return found


def _opencv(missing: list[dict[str, str]]) -> Report:
    command = f"{sys.executable} -m pip install opencv-python-headless"
    try:
        import cv2
    except (ImportError, OSError) as error:
        missing.append({"what": "OpenCV", "why": str(error), "command": command})
        return {"name": "OpenCV", "version": None, "problem": str(error)}
    absent = [
        name for name in ("blendLinear", "boxFilter", "remap", "LUT", "imencode") if not hasattr(cv2, name)
    ]
    found: Report = {"name": "OpenCV", "version": cv2.__version__}
    if absent:
        found["problem"] = f"has no {', '.join(absent)}"
        missing.append({"what": "OpenCV", "why": found["problem"], "command": command})
    return found


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
