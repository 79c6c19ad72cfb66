#!/usr/bin/env -S .venv/bin/python
"""Makes docs/img/demo.jpg: the bundled clip as the camera sees it, and as viewers do.

Run from the root of the project: scripts/make-demo-picture.py [FRAME]
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from edge_seg import config_file
from edge_seg.backgrounds import open_background
from edge_seg.bench import FRAME_NS, read_clip
from edge_seg.colour import i420_to_bgr
from edge_seg.pipeline import Pipeline
from edge_seg.segmenter import open_segmenter
from edge_seg.timings import StageTimes
from edge_seg.types import I420, Frame, Mask

QUALITY = 88


def main(wanted: int) -> None:
    config = config_file.load(Path("config/demo.yaml"))
    assert config.source is not None
    assert config.source.type == "file"
    pictures = read_clip(Path(config.source.path), wanted + 1)
    first = pictures[0]
    size = (first.width, first.height)
    segmenter = open_segmenter(config.model, size)
    pipeline = Pipeline(config, segmenter.input_size, StageTimes())
    background = open_background(config.background, *size, first.matrix)
    out = I420.allocate(*size, first.matrix)
    for seq, picture in enumerate(pictures):
        frame = Frame(picture, seq, seq * FRAME_NS)
        small = pipeline.shrink(frame)
        pipeline.track(frame, small)
        pipeline.observe(Mask(segmenter.infer(small), seq, seq, frame.captured_ns))
        pipeline.render(frame, background, out, frame.captured_ns)
    beside = np.hstack([i420_to_bgr(pictures[-1]), i420_to_bgr(out)])
    cv2.imwrite("docs/img/demo.jpg", beside, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
