"""The pictures of edges in docs/compositing.md: camera, `fast`, `balanced` and `best`, side by side.

    .venv/bin/python benchmarks/edge_crops.py DIR docs/img           # DIR: the sequences with ground truth
    .venv/bin/python benchmarks/edge_crops.py DIR /tmp --kind .png   # to look at them before and after a change

Masks are those after flow and fusion, at the sequences' own size. What is cut out is enlarged without smoothing.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from edge_seg.backgrounds.still import solid
from edge_seg.colour import i420_to_bgr
from edge_seg.composite import composite
from edge_seg.errors import ConfigError
from edge_seg.evaluation import sequences
from edge_seg.evaluation.methods import Ours, Settings
from edge_seg.matte import MatteSettings, Quality, refine
from edge_seg.model_card import ModelSettings
from edge_seg.pyramid import Yuv444, shrink
from edge_seg.segmenter import open_segmenter
from edge_seg.types import I420, U8, Mask

SIDE = 110
"""Of what is cut out, in pixels."""
ENLARGED = 275
BEHIND = "#761c01"
"""A plain background that hides nothing."""


@dataclass(frozen=True)
class Crop:
    name: str
    sequence: str
    frame: int
    left: int
    top: int


CROPS = (
    Crop("edge-hair", "comp_dancer_close_static_realroom", 180, 270, 20),
    Crop("edge-arm", "comp_dancer_close_static_realroom", 180, 165, 230),
    Crop("edge-dark", "comp_mdn_headA_static_room", 90, 190, 80),
)


def fused_mask(sequence: sequences.Sequence, frame: int) -> tuple[I420, Yuv444, Mask]:
    """A frame of the sequence, the small picture of it, and the mask after all the frames before."""
    segmenter, fusion = None, Ours(Settings())
    for index, sample in enumerate(sequence.samples()):
        picture = sample.picture
        segmenter = segmenter or open_segmenter(
            ModelSettings(threads=1, probe=False), (picture.width, picture.height)
        )
        small = shrink(picture, segmenter.input_size)
        fusion.advance(small)
        fusion.observe(segmenter.infer(small), index)
        if index == frame:
            return picture, small, Mask(fusion.target(), index, index, 0)
    raise ConfigError(f"{sequence.name}: ends before frame {frame}")


def columns(picture: I420, small: Yuv444, mask: Mask) -> list[U8]:
    """The camera's picture and the composites, BGR."""
    behind = solid(BEHIND, picture.width, picture.height, picture.matrix)
    shown = [i420_to_bgr(picture)]
    for quality in get_args(Quality):
        out = I420.allocate(picture.width, picture.height, picture.matrix)
        composite(picture, refine(mask, small, MatteSettings(quality)), behind, out)
        shown.append(i420_to_bgr(out))
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("path", type=Path, help="folder of the sequences")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--kind", choices=(".jpg", ".png"), default=".jpg")
    options = parser.parse_args()
    for crop in CROPS:
        (sequence,) = sequences.find(options.path, (crop.sequence,))
        shown = columns(*fused_mask(sequence, crop.frame))
        parts = [bgr[crop.top : crop.top + SIDE, crop.left : crop.left + SIDE] for bgr in shown]
        large = cv2.resize(
            np.hstack(parts), (ENLARGED * len(parts), ENLARGED), interpolation=cv2.INTER_NEAREST
        )
        path = options.out / f"{crop.name}{options.kind}"
        cv2.imwrite(str(path), large, [cv2.IMWRITE_JPEG_QUALITY, 90])
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
