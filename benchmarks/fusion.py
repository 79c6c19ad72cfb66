"""What flow and fusion cost a frame, beside one invoke of the mask model in the same run.

    python benchmarks/fusion.py CLIP.mp4 --model models/selfie_landscape_int8.tflite [--size 1280x720] [--frames 300]

The clip is decoded and shrunk beforehand: a decoder has threads, which would be measured as well. Then one way after
the other goes through it; every frame is given to the model (one thread), then to flow and fusion (they have no
threads), so that the model has emptied the caches, as in the daemon. Counted is CPU time, which other work on the
machine disturbs little. Printed: medians in ms and the medians of the frame-by-frame ratios to the invoke, once with
chroma, once without, and once for a mask that comes a frame late; then the same for other block sizes of the flow.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edge_seg import flow, fusion
from edge_seg.flow import FlowSettings
from edge_seg.fusion import Fusion, FusionSettings
from edge_seg.memory import keep_freed
from edge_seg.pyramid import Yuv444, shrink
from edge_seg.types import F32, I420, BlockFlow, Mask

MS = 1e3


class Model:
    """The int8 model, one thread: input x = rgb - 128, output p = (y + 128) / 256."""

    def __init__(self, path: Path) -> None:
        self.interpreter = Interpreter(str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        self.size = int(self.input["shape"][2]), int(self.input["shape"][1])

    def invoke(self, small: Yuv444) -> tuple[F32, float]:
        rgb = cv2.cvtColor(np.dstack([small.y, small.v, small.u]), cv2.COLOR_YCrCb2RGB)
        self.interpreter.set_tensor(self.input["index"], (rgb ^ 0x80).view(np.int8)[None])
        begin = time.thread_time()
        self.interpreter.invoke()
        took = time.thread_time() - begin
        levels = self.interpreter.get_tensor(self.output["index"])[0, ..., 0].view(np.uint8) ^ 0x80
        return levels.astype(np.float32) / 256, took


class Way:
    """One way through flow and fusion, with its own state."""

    def __init__(self, name: str, settings: FlowSettings, chroma: bool = True, late: int = 0) -> None:
        self.name, self.settings, self.chroma, self.late = name, settings, chroma, late
        self.fusion = Fusion(FusionSettings())
        self.last: Yuv444 | None = None
        self.prepared: flow.Prepared | None = None
        self.flow: BlockFlow | None = None
        self.masks: list[Mask] = []
        self.costs: dict[str, list[float]] = defaultdict(list)
        self.ratios: dict[str, list[float]] = defaultdict(list)

    def frame(self, small: Yuv444, probability: F32, seq: int) -> dict[str, float]:
        times = [time.thread_time()]
        before, self.prepared = self.prepared, flow.prepare(small.y)
        if before is not None:
            self.flow = flow.estimate(before, self.prepared, self.settings, self.flow)
        times.append(time.thread_time())
        chroma = (small.u, small.v) if self.chroma else None
        self.fusion.advance(self.last.y if self.last else None, small.y, self.flow, seq, seq, chroma)
        times.append(time.thread_time())
        self.masks.append(Mask(probability, seq, seq, seq))
        if len(self.masks) > self.late:
            self.fusion.observe(self.masks.pop(0))
        self.fusion.target()
        times.append(time.thread_time())
        self.last = small
        parts = dict(zip(("flow", "advance", "observe"), np.diff(times).tolist(), strict=True))
        return {**parts, "all": sum(parts.values())}


def pictures(clip: Path, size: tuple[int, int], count: int) -> Iterator[I420]:
    capture = cv2.VideoCapture(str(clip))
    for _ in range(count):
        ok, frame = capture.read()
        if not ok:
            return
        planes = cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_BGR2YUV_I420)
        yield I420.wrap(planes.reshape(-1), *size)


def main() -> None:
    parser = argparse.ArgumentParser(description="the cost of flow and fusion over one invoke")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--model", type=Path, default=Path("models/selfie_landscape_int8.tflite"))
    parser.add_argument("--size", default="1280x720", help="multiples of 8")
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    keep_freed()  # as `run` does
    width, height = (int(side) for side in options.size.split("x"))
    model = Model(options.model)
    ways = [Way("default", FlowSettings()), Way("no chroma", FlowSettings(), chroma=False)]
    ways += [Way("a frame late", FlowSettings(), late=1)]
    ways += [Way(f"block {px}", FlowSettings(block_px=px)) for px in (8, 2)]  # type: ignore[arg-type]
    invokes = []
    smalls = [
        shrink(picture, model.size) for picture in pictures(options.clip, (width, height), options.frames)
    ]
    for way in ways:
        for seq, small in enumerate(smalls):
            probability, invoke = model.invoke(small)
            cost = way.frame(small, probability, seq)
            if seq < 5:
                continue
            invokes.append(invoke)
            for part, took in cost.items():
                way.costs[part].append(took)
                way.ratios[part].append(took / invoke)
    print(f"kernels: {fusion.kernels_name()}, grid {model.size}, invoke {np.median(invokes) * MS:.2f} ms")
    print(f"{'':14}" + "".join(f"{part:>18}" for part in ways[0].costs))
    for way in ways:
        cells = (
            f"{np.median(took) * MS:8.2f} ms {np.median(way.ratios[part]):6.3f}"
            for part, took in way.costs.items()
        )
        print(f"{way.name:14}" + "".join(cells))


if __name__ == "__main__":
    main()
