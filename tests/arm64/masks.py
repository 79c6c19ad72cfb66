"""The masks of the shipped models for a few pictures, on whichever processor this runs: `write` makes the pictures and
this machine's masks, `compare` checks another processor's masks against them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np

from edge_seg.colour import bgr_to_i420
from edge_seg.model_card import ModelSettings
from edge_seg.pyramid import shrink
from edge_seg.segmenter import open_segmenter
from edge_seg.types import F32, I420, Matrix

PICTURES = 4
STEP = 40
LEAST_IOU = 0.99
"""The kernels of two processors round differently: single pixels differ, contours hardly."""

MODELS = {"selfie_landscape_int8": (1280, 720), "selfie_general_int8": (720, 720)}


def masks(pictures: list[I420]) -> dict[str, list[F32]]:
    found: dict[str, list[F32]] = {}
    for name, size in MODELS.items():
        segmenter = open_segmenter(ModelSettings(file=name, threads=1, probe=False), size)
        started = time.monotonic()
        found[name] = [segmenter.infer(shrink(picture, segmenter.input_size)) for picture in pictures]
        seconds = time.monotonic() - started
        print(f"{name}: {len(pictures)} masks in {seconds:.1f} s with {segmenter.runtime_name}")
    return found


def write(folder: Path) -> None:
    capture = cv2.VideoCapture("config/demo/person.mp4")
    pictures = []
    for index in range(PICTURES * STEP):
        has_picture, bgr = capture.read()
        assert has_picture
        if index % STEP == 0:
            pictures.append(bgr_to_i420(bgr, Matrix.BT601))
    np.savez(folder / "pictures.npz", *(plane for picture in pictures for plane in picture.planes))
    np.savez(folder / "masks.npz", **{name: np.stack(made) for name, made in masks(pictures).items()})


def read_pictures(folder: Path) -> list[I420]:
    with np.load(folder / "pictures.npz") as file:
        planes = [file[key] for key in file.files]
    pictures = []
    for at in range(0, len(planes), 3):
        rows, cols = planes[at].shape
        pictures.append(I420.allocate(cols, rows, Matrix.BT601))
        for kept, plane in zip(pictures[-1].planes, planes[at : at + 3], strict=True):
            np.copyto(kept, plane)
    return pictures


def compare(folder: Path) -> bool:
    """Whether the masks that this processor makes are those in the folder."""
    worst = 1.0
    with np.load(folder / "masks.npz") as file:
        for name, made in masks(read_pictures(folder)).items():
            for index, (ours, theirs) in enumerate(zip(made, file[name], strict=True)):
                both = np.count_nonzero((ours >= 0.5) & (theirs >= 0.5))
                either = np.count_nonzero((ours >= 0.5) | (theirs >= 0.5))
                iou = both / either if either else 1.0
                worst = min(worst, iou)
                print(
                    f"{name}, picture {index}: IoU {iou:.4f}, mean difference {np.abs(ours - theirs).mean():.5f}"
                )
    print(f"worst IoU {worst:.4f}, wanted {LEAST_IOU}")
    return worst >= LEAST_IOU


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if sys.argv[1] == "write":
        write(folder)
    elif not compare(folder):
        sys.exit(1)
