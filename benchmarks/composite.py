"""What the matte and the composite cost and what they make of edges.

    .venv/bin/python benchmarks/composite.py time CLIP           # a video with a person in it
    .venv/bin/python benchmarks/composite.py quality DIR [NAME]  # sequences with ground truth, as `edge-seg eval`
    .venv/bin/python benchmarks/composite.py memory CLIP         # what 5,000 frames leave behind
    .venv/bin/python benchmarks/composite.py threads CLIP        # whether rows on two threads pay

`time` sets all against a copy of the same frame, in the same run and in turn, on one thread; behind the person is a
picture, or a colour as the daemon makes it. `cold` goes through
all frames of the clip, as a camera does; `hot` composites one frame over and over, so that all of it stays in the
cache, the copy's time with it. `quality` measures alpha at the full size of the sequence: BF1 with a tolerance
of 2 px at a width of 640, MAD x 1000, dtSSD x 100, for the model's masks, the fused ones and the true ones.
`memory` sends frames through pyramid, matte, blurred room and composite. `threads` composites the upper and the
lower half of each picture on a thread of its own, and both in turn on one.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from edge_seg.backgrounds import BackgroundSettings, open_background
from edge_seg.bench import read_clip, scale
from edge_seg.composite import composite, composite_reference
from edge_seg.evaluation import sequences
from edge_seg.evaluation.methods import Ours, Settings
from edge_seg.matte import MatteSettings, Quality, refine, render
from edge_seg.memory import keep_freed
from edge_seg.model_card import ModelSettings
from edge_seg.pyramid import Yuv444, shrink
from edge_seg.segmenter import Segmenter, open_segmenter
from edge_seg.types import ALPHA_ONE, F32, I420, U8, Alpha, Frame, Mask, is_fitted

SIZES = ((1280, 720), (1920, 1080))
QUALITIES: tuple[Quality, ...] = ("fast", "balanced", "best")
FRAMES = 24
ROUNDS = 12


def mask_of(probability: F32) -> Mask:
    return Mask(probability=probability, seq=0, observed_seq=0, observed_ns=0)


def segmenter_for(size: tuple[int, int]) -> Segmenter:
    return open_segmenter(ModelSettings(threads=1, probe=False), size)


# ---- time


def opencv_chain(front: I420, alpha: Alpha, back: I420, out: I420) -> None:
    """The fastest chain of OpenCV calls that was found: upsample, then two multiplications and an addition."""
    for f, b, o in zip(front.planes, back.planes, out.planes, strict=True):
        full = cv2.resize((alpha.offset // 4).clip(0, 255).astype(np.uint8), (f.shape[1], f.shape[0]))
        cv2.add(cv2.multiply(f, full, scale=1 / 255), cv2.multiply(b, 255 - full, scale=1 / 255), dst=o)


def measure(calls: dict[str, Callable[[int], object]], count: int) -> dict[str, float]:
    """Ms of each call, all calls in turn, `count` frames ROUNDS times: the 10th percentile, which other work on
    the machine disturbs least."""
    times: dict[str, list[int]] = {name: [] for name in calls}
    for index in range(-count, count * ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter_ns()
            call(index % count)
            if index >= 0:
                times[name].append(time.perf_counter_ns() - started)
    return {name: float(np.percentile(values, 10)) / 1e6 for name, values in times.items()}


def time_size(pictures: list[I420], size: tuple[int, int], cold: bool) -> None:
    segmenter = segmenter_for(size)
    frames = [I420.allocate(*size) for _ in (pictures if cold else pictures[:1])]
    for picture, frame in zip(pictures, frames, strict=False):
        scale(picture, frame)
    smalls = [shrink(frame, segmenter.input_size) for frame in frames]
    masks = [mask_of(segmenter.infer(small)) for small in smalls]
    back = I420.filled(*size, (90, 100, 140))
    out = I420.filled(*size, (0, 0, 0))
    plain = open_background(BackgroundSettings(type="colour"), *size, back.matrix)
    colour = plain.render(Frame(frames[0], 0, 0), None, 0)
    plain.close()
    alphas = {
        q: [refine(m, s, MatteSettings(q)) for m, s in zip(masks, smalls, strict=True)] for q in QUALITIES
    }

    def refining(quality: Quality) -> Callable[[int], object]:
        settings = MatteSettings(quality)
        return lambda i: refine(masks[i], smalls[i], settings)

    def compositing(quality: Quality, behind: I420) -> Callable[[int], object]:
        return lambda i: composite(frames[i], alphas[quality][i], behind, out)

    calls: dict[str, Callable[[int], object]] = {"copy": lambda i: np.copyto(out.buffer, frames[i].buffer)}
    for quality in QUALITIES:
        calls[f"matte {quality}"] = refining(quality)
        calls[f"composite {quality}"] = compositing(quality, back)
        calls[f"on a colour {quality}"] = compositing(quality, colour)
    calls["OpenCV chain"] = lambda i: opencv_chain(frames[i], alphas["fast"][i], back, out)
    result = measure(calls, len(frames))
    copy = result["copy"]
    print(f"\n{size[0]}x{size[1]}, {'cold' if cold else 'hot'}: copy of the frame {copy:.3f} ms")
    print(
        f"{'':16s}{'matte ms':>10s}{'composite ms':>14s}{'on a colour':>13s}{'composite/copy':>16s}"
        f"{'both/copy':>11s}{'band %':>8s}"
    )
    for quality in QUALITIES:
        matte_ms, composite_ms = result[f"matte {quality}"], result[f"composite {quality}"]
        band = np.mean([blended_share(alpha) for alpha in alphas[quality]]) * 100
        ratio, both = composite_ms / copy, (matte_ms + composite_ms) / copy
        on_colour = result[f"on a colour {quality}"]
        print(
            f"{quality:16s}{matte_ms:10.3f}{composite_ms:14.3f}{on_colour:13.3f}{ratio:16.2f}{both:11.2f}{band:8.1f}"
        )
    chain = result["OpenCV chain"]
    print(f"{'OpenCV chain':16s}{'':10s}{chain:14.3f}{'':13s}{chain / copy:16.2f}")
    started = time.perf_counter_ns()
    a = alphas["balanced"][0]
    composite_reference(frames[0].planes, back.planes, out.planes, a.offset, a.gain, a.foreground)
    reference = (time.perf_counter_ns() - started) / 1e6
    print(f"{'NumPy reference':16s}{'':10s}{reference:14.3f}{'':13s}{reference / copy:16.2f}")


def blended_share(alpha: Alpha) -> float:
    """Of the grid's cells, those that are neither all person nor all room."""
    offset = alpha.offset
    pure = (offset <= 2) | (offset >= ALPHA_ONE) if alpha.gain is None else ~is_fitted(offset)
    return 1 - float(cv2.erode(pure.astype(np.uint8), np.ones((2, 2), np.uint8)).mean())


# ---- memory and threads


def resident_kb() -> int:
    """Of this process, now; where there is no /proc, the most it ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize() // 1024


def memory(pictures: list[I420], frames: int = 5000, warm_up: int = 200) -> None:
    size = SIZES[0]
    segmenter = segmenter_for(size)
    frame, out = I420.allocate(*size), I420.allocate(*size)
    scale(pictures[0], frame)
    background = open_background(BackgroundSettings(type="blur"), *size, frame.matrix)
    probability = segmenter.infer(shrink(frame, segmenter.input_size)).copy()
    resident = 0
    for seq in range(warm_up + frames):
        if seq == warm_up:
            tracemalloc.start()
            kept_before, resident = tracemalloc.get_traced_memory()[0], resident_kb()
        if seq % 100 == 0:
            scale(pictures[seq // 100 % len(pictures)], frame)
        small = shrink(frame, segmenter.input_size)
        mask = Mask(probability, seq, seq, seq)
        alpha = refine(mask, small, MatteSettings())
        captured = Frame(frame, seq, seq * 33_333_333)
        behind = background.render(captured, mask, captured.captured_ns)
        composite(background.front(captured), alpha, behind, out)
        del alpha, small
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    background.close()
    print(f"{frames} frames of {size[0]}x{size[1]} ({frame.buffer.nbytes / 1e6:.2f} MB each):")
    print(f"  resident memory {resident_kb() - resident:+d} kB")
    print(f"  traced memory {(kept - kept_before) / 1024:+.1f} kB kept, {peak / 1e6:.2f} MB at most at once")


def threads(pictures: list[I420], size: tuple[int, int]) -> None:
    width, height = size[0], size[1] // 2
    segmenter = segmenter_for(size)
    whole = I420.allocate(*size)
    halves: list[list[tuple[I420, Alpha]]] = []
    for picture in pictures:
        scale(picture, whole)
        pair = []
        small = shrink(whole, segmenter.input_size)
        mask = segmenter.infer(small)
        rows = mask.shape[0] // 2
        for part in range(2):
            grid, grid_rows = I420.allocate(width, height), slice(part * rows, (part + 1) * rows)
            for source, target in zip(whole.planes, grid.planes, strict=True):
                target[:] = source[part * target.shape[0] :][: target.shape[0]]
            piece = Yuv444(
                *(np.ascontiguousarray(p[grid_rows]) for p in (small.y, small.u, small.v)), small.matrix
            )
            alpha = refine(mask_of(np.ascontiguousarray(mask[grid_rows])), piece, MatteSettings())
            pair.append((grid, alpha))
        halves.append(pair)
    back = I420.filled(width, height, (90, 100, 140))
    outs = [I420.filled(width, height, (0, 0, 0)) for _ in range(2)]
    pool = ThreadPoolExecutor(1)

    def half(index: int, part: int) -> None:
        picture, alpha = halves[index][part]
        composite(picture, alpha, back, outs[part])

    def in_turn(index: int) -> None:
        half(index, 0)
        half(index, 1)

    def at_once(index: int) -> None:
        lower = pool.submit(half, index, 1)
        half(index, 0)
        lower.result()

    def handed_over(index: int) -> None:
        pool.submit(int).result()

    calls: dict[str, Callable[[int], object]] = {
        "one thread": in_turn,
        "two threads": at_once,
        "handing over alone": handed_over,
    }
    print(
        f"\n{size[0]}x{size[1]}: "
        + ", ".join(f"{n} {ms:.3f} ms" for n, ms in measure(calls, len(halves)).items())
    )
    pool.shutdown()


# ---- quality

Alphas = Callable[[F32, Yuv444, I420], F32]


def ours(quality: Quality) -> Alphas:
    def alpha(mask: F32, small: Yuv444, picture: I420) -> F32:
        return render(refine(mask_of(mask), small, MatteSettings(quality)), picture).astype(np.float32) / 255

    return alpha


def bilinear(mask: F32, small: Yuv444, picture: I420) -> F32:
    return np.asarray(cv2.resize(mask, (picture.width, picture.height)), np.float32)


def fast_guided(mask: F32, small: Yuv444, picture: I420) -> F32:
    """He and Sun's, on luma: radius 2 pixels of the mask, epsilon 1e-4."""
    gain, offset = guided_fit(mask, small.y.astype(np.float32) / 255, 2)
    size = picture.width, picture.height
    return np.clip(cv2.resize(gain, size) * (picture.y / np.float32(255)) + cv2.resize(offset, size), 0, 1)


def full_guided(mask: F32, small: Yuv444, picture: I420) -> F32:
    """He's, on luma at the picture's size, radius 8 px at a width of 640."""
    guide = picture.y.astype(np.float32) / 255
    gain, offset = guided_fit(bilinear(mask, small, picture), guide, round(8 * picture.width / 640))
    return np.clip(gain * guide + offset, 0, 1)


def guided_fit(mask: F32, guide: F32, radius: int, epsilon: float = 1e-4) -> tuple[F32, F32]:
    def mean(values: F32) -> F32:
        return np.asarray(cv2.blur(values, (2 * radius + 1, 2 * radius + 1)), np.float32)

    mean_guide, mean_mask = mean(guide), mean(mask)
    variance = mean(guide * guide) - mean_guide * mean_guide
    gain = (mean(guide * mask) - mean_guide * mean_mask) / (variance + np.float32(epsilon))
    return mean(gain), mean(mean_mask - gain * mean_guide)


METHODS: dict[str, Alphas] = {
    "bilinear": bilinear,
    "fast guided filter, luma": fast_guided,
    "guided filter at full size": full_guided,
    **{f"ours, {quality}": ours(quality) for quality in QUALITIES},
}


def boundary(mask: U8) -> U8:
    return mask - np.asarray(
        cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE), np.uint8
    )


def boundary_f1(alpha: F32, truth: F32) -> float:
    """F-measure of 1 px wide boundaries, matched within 2 px at a width of 640."""
    ours_, theirs = (boundary((a >= 0.5).astype(np.uint8)) for a in (alpha, truth))
    if not ours_.any() or not theirs.any():
        return float(not ours_.any() and not theirs.any())
    tolerance = 2 * alpha.shape[1] / 640
    to_ours, to_theirs = (cv2.distanceTransform(1 - b, cv2.DIST_L2, 5) for b in (ours_, theirs))
    precision = float((to_theirs[ours_ > 0] <= tolerance + 0.01).mean())
    recall = float((to_ours[theirs > 0] <= tolerance + 0.01).mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def quality(sequence: sequences.Sequence, step: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Kind of mask -> method -> BF1, MAD, dtSSD; of every `step`-th frame, dtSSD with the one before it."""
    figures: dict[str, dict[str, list[list[float]]]] = {}
    before: dict[tuple[str, str], F32] = {}
    truth_before: F32 | None = None
    segmenter, fusion = None, Ours(Settings())
    for index, sample in enumerate(sequence.samples()):
        picture = sample.picture
        truth = cv2.resize(sample.truth, (picture.width, picture.height)).astype(np.float32) / 255
        segmenter = segmenter or segmenter_for((picture.width, picture.height))
        small = shrink(picture, segmenter.input_size)
        model = segmenter.infer(small)
        fusion.advance(small)
        fusion.observe(model, index)
        masks = {"model": model, "fused": fusion.target()}
        masks["true"] = np.asarray(
            cv2.resize(truth, segmenter.input_size, interpolation=cv2.INTER_AREA), np.float32
        )
        if index % step not in (step - 1, 0):
            continue
        for kind, mask in masks.items():
            for name, method in METHODS.items():
                alpha = method(mask, small, picture)
                if index % step == 0:
                    row = figures.setdefault(kind, {}).setdefault(name, [[], [], []])
                    row[0].append(boundary_f1(alpha, truth))
                    row[1].append(float(np.abs(alpha - truth).mean()) * 1000)
                    if truth_before is not None:
                        change = (alpha - before[kind, name]) - (truth - truth_before)
                        row[2].append(float(np.sqrt(np.mean(change * change))) * 100)
                before[kind, name] = alpha
        truth_before = truth
    return {
        kind: {name: tuple(float(np.mean(f)) for f in row) for name, row in rows.items()}  # type: ignore[misc]
        for kind, rows in figures.items()
    }


def print_quality(title: str, results: list[dict[str, dict[str, tuple[float, float, float]]]]) -> None:
    print(f"\n{title}\n{'':10s}{'':28s}{'BF1':>7s}{'MAD':>7s}{'dtSSD':>7s}")
    for kind in results[0]:
        for name in METHODS:
            bf1, mad, dtssd = np.mean([result[kind][name] for result in results], axis=0)
            print(f"{kind:10s}{name:28s}{bf1:7.3f}{mad:7.1f}{dtssd:7.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("what", choices=("time", "quality", "memory", "threads"))
    parser.add_argument("path", type=Path)
    parser.add_argument("names", nargs="*", help="of the sequences, * and ? allowed")
    parser.add_argument("--step", type=int, default=6, help="measure every so many frames (default 6)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    keep_freed()  # as the daemon does
    if options.what != "quality":
        pictures = read_clip(options.path, FRAMES)
        if options.what == "memory":
            memory(pictures)
        for size in SIZES:
            if options.what == "threads":
                threads(pictures, size)
            for cold in (True, False) if options.what == "time" else ():
                time_size(pictures, size, cold)
        return 0
    results = []
    for sequence in sequences.find(options.path, tuple(options.names)):
        results.append(quality(sequence, options.step))
        print_quality(sequence.name, results[-1:])
    print_quality("mean", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
