"""How good, how steady and how fast mask models are: the table in docs/models.md.

    python benchmarks/models.py --clips DIR --against FLOAT.tflite MODEL.tflite ...

DIR holds sequences as `edge-seg eval` reads them. Each model needs a card beside it; --card gives one for all.
Quality is the model's own, without any smoothing: IoU and dtSSD against the ground truth, then the agreement
with FLOAT (IoU, MAD, and dtSSD between the two). --square cuts a square of full height out of each clip, about
the middle of its people: what a model for square pictures is meant for. Timings are of the bare inference, all
models in turn, so that a busy machine is equally unfair to all; the fastest tenth says what a quiet one takes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge_seg.evaluation import metrics
from edge_seg.evaluation.sequences import Sample, Sequence, find
from edge_seg.model_card import ModelCard, ModelSettings, load_card, read_model
from edge_seg.runtime import Interpreter
from edge_seg.segmenter import Segmenter
from edge_seg.types import F32

ROUNDS = 60


def card_of(path: Path, given: Path | None) -> ModelCard:
    beside = given or path.with_suffix(".yaml")
    if not beside.is_file():
        return ModelCard(name=path.stem, file=path)
    card = load_card(beside)
    if given is None:
        return replace(card, file=path)
    plain_input, plain_output = replace(card.input, dtype=None), replace(card.output, dtype=None)
    return replace(card, name=path.stem, file=path, sha256="", input=plain_input, output=plain_output)


def squares(sequence: Sequence) -> Iterator[Sample]:
    """The frames, cut to the square of full height whose middle is the mean column of the people."""
    weights = sum(sample.truth.sum(axis=0, dtype=np.int64) for sample in sequence.samples())
    middle = float(np.average(np.arange(len(weights)) + 0.5, weights=weights)) / len(weights)
    for sample in sequence.samples():
        picture, truth = sample.picture, sample.truth
        side = min(picture.width, picture.height) & ~1
        left = int(min(max(0, middle * picture.width - side / 2), picture.width - side)) & ~1
        half = slice(left // 2, (left + side) // 2)
        y, u, v = (
            picture.y[:side, left : left + side],
            picture.u[: side // 2, half],
            picture.v[: side // 2, half],
        )
        scale = truth.shape[1] / picture.width
        truth = truth[:, round(left * scale) : round((left + side) * scale)]
        yield replace(sample, picture=replace(picture, y=y, u=u, v=v), truth=truth)


def masks(
    card: ModelCard, clips: Path, patterns: tuple[str, ...], runtime: str, every: int, square: bool
) -> dict[str, tuple[F32, F32]]:
    """Per sequence: the model's masks and the ground truth. Shapes: (frames, rows, cols), float32."""
    result = {}
    for sequence in find(clips, patterns):
        segmenter: Segmenter | None = None
        ours, truth = [], []
        for k, sample in enumerate(squares(sequence) if square else sequence.samples()):
            if k % every:
                continue
            if segmenter is None:
                size = (sample.picture.width, sample.picture.height)
                segmenter = Segmenter(card, ModelSettings(runtime=runtime), size)  # type: ignore[arg-type]
            ours.append(segmenter.segment(sample.picture))
            size = segmenter.input_size
            truth.append(cv2.resize(sample.truth / np.float32(255), size, interpolation=cv2.INTER_AREA))
        result[sequence.name] = (np.array(ours, np.float32), np.array(truth, np.float32))
    return result


def quality(
    ours: dict[str, tuple[F32, F32]], floats: dict[str, tuple[F32, F32]]
) -> dict[str, dict[str, float]]:
    rows = {}
    for name, (mask, truth) in ours.items():
        theirs = floats[name][0]
        rows[name] = {
            "iou": float(np.mean(metrics.iou(mask >= 0.5, truth >= 0.5))),
            "dtssd": float(np.nanmean(metrics.dtssd(mask, truth))),
            "iou_to_float": float(np.mean(metrics.iou(mask >= 0.5, theirs >= 0.5))),
            "mad_to_float": float(np.abs(mask - theirs).mean()),
            "dtssd_to_float": float(np.nanmean(metrics.dtssd(mask, theirs))),
        }
    rows["mean"] = {
        key: float(np.mean([row[key] for row in rows.values()])) for key in next(iter(rows.values()))
    }
    return rows


def timings(cards: list[ModelCard], runtime: str, threads: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of one inference of each model: the median, and the fastest tenth."""
    settings = ModelSettings(runtime=runtime, threads=threads)  # type: ignore[arg-type]
    interpreters = [Interpreter(read_model(card), settings) for card in cards]
    times: list[list[float]] = [[] for _ in cards]
    for _ in range(ROUNDS):
        for interpreter, series in zip(interpreters, times, strict=True):
            interpreter.invoke()  # its weights and buffers come back into the caches
            start = time.perf_counter()
            interpreter.invoke()
            series.append((time.perf_counter() - start) * 1000)
    return {
        str(card.file): (float(np.median(series)), float(np.percentile(series, 10)))
        for card, series in zip(cards, times, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--against", type=Path, required=True, help="the float model")
    parser.add_argument("--card", type=Path, help="a card for all of them")
    parser.add_argument("--clips", type=Path, help="a folder of sequences with ground truth")
    parser.add_argument("--only", nargs="*", default=[], metavar="PATTERN", help="names of sequences")
    parser.add_argument("--every", type=int, default=1, help="take every so many frames")
    parser.add_argument("--square", action="store_true", help="cut each clip to a square about its people")
    parser.add_argument("--runtime", choices=("auto", "litert", "tflite"), default="auto")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    cards = [card_of(path, arguments.card) for path in (arguments.against, *arguments.models)]
    if arguments.clips is None:
        found = {}
    else:
        per_model = [
            masks(
                card,
                arguments.clips,
                tuple(arguments.only),
                arguments.runtime,
                arguments.every,
                arguments.square,
            )
            for card in cards
        ]
        found = {
            str(card.file): quality(ours, per_model[0]) for card, ours in zip(cards, per_model, strict=True)
        }
    speed = {threads: timings(cards, arguments.runtime, threads) for threads in arguments.threads}
    if arguments.json:
        print(json.dumps({"quality": found, "invoke_ms": speed}))
        return
    for model, rows in found.items():
        print(model)
        for name, row in rows.items():
            print(f"  {name:42}" + "".join(f"  {key} {value:.4f}" for key, value in row.items()))
    for threads, row in speed.items():
        each = ", ".join(
            f"{Path(model).name} {median:.2f} ms ({fast:.2f})" for model, (median, fast) in row.items()
        )
        print(f"{threads} threads: {each}")


if __name__ == "__main__":
    main()
