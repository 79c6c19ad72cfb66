"""Sequences of pictures with ground truth, in folders: where they are, and their frames one by one.

Two layouts: `NAME/rgb.mp4` with `NAME/alpha.mkv` (8-bit gray, how much of each pixel is the person), and
`NAME/rgb/NNNNN.jpg` with `NAME/mask/NNNNN.png` (any value but zero is the person, as in DAVIS).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from edge_seg.colour import bgr_to_i420
from edge_seg.errors import ConfigError
from edge_seg.types import I420, U8, Matrix

LAYOUTS = "NAME/rgb.mp4 and NAME/alpha.mkv, or NAME/rgb/NNNNN.jpg and NAME/mask/NNNNN.png"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
JPEG_OBJECT = 128
"""JPEG blurs a mask and adds noise to it: there, the object begins at half the range."""
SD_ROWS = 576
"""Up to so many rows a video is taken for BT.601, above for BT.709, as GStreamer takes an untagged one."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One frame with its ground truth, which may be of another size than the picture."""

    label: str
    """Five digits, or the file's own name without suffix."""
    picture: I420
    truth: U8
    """Shape: (rows, cols), uint8: how much of each pixel is the person, 0 to 255."""


class Sequence(Protocol):
    """A named sequence that can be read from its start any number of times."""

    name: str

    @property
    def count(self) -> int:
        """Frames that it is expected to have, for the progress bar. `samples` decides."""

    def samples(self) -> Iterator[Sample]: ...

    @property
    def left_out(self) -> str:
        """What could not be used, in words, once `samples` has ended; empty if everything was."""


def find(root: Path, patterns: tuple[str, ...] = ()) -> list[Sequence]:
    """The sequences in `root`, by name, or the one that `root` is. Raises ConfigError where there is none.

    Only those whose name matches one of the shell `patterns`, if there are any.
    """
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise ConfigError(f"{root}: {what}: expected {LAYOUTS}")
    one = _open(root)
    found = [one] if one else [s for path in sorted(root.iterdir()) if path.is_dir() and (s := _open(path))]
    if not found:
        raise ConfigError(f"{root}: no sequences in it: expected {LAYOUTS}")
    return matching(found, patterns, str(root))


def matching(found: list[Sequence], patterns: tuple[str, ...], where: str) -> list[Sequence]:
    """Those whose name matches one of the shell `patterns`, or all if there are none."""
    kept = [s for s in found if not patterns or any(fnmatch(s.name, pattern) for pattern in patterns)]
    if not kept:
        names = ", ".join(s.name for s in found)
        raise ConfigError(f"{where}: no sequence is called {' or '.join(patterns)}, only {names}")
    return kept


def _open(path: Path) -> Sequence | None:
    video, alpha = path / "rgb.mp4", path / "alpha.mkv"
    pictures, masks = path / "rgb", path / "mask"
    name = path.resolve().name
    for one, other in ((video, alpha), (alpha, video), (pictures, masks), (masks, pictures)):
        if one.exists() and not other.exists():
            raise ConfigError(f"{path}: {one.name} without {other.name}: expected {LAYOUTS}")
    if video.exists():
        return VideoSequence(name, video, alpha)
    if pictures.is_dir():
        return ImageSequence(name, pictures, masks)
    return None


class VideoSequence:
    """`rgb.mp4` and `alpha.mkv`. Where one is longer, what it has more is left out."""

    def __init__(self, name: str, video: Path, alpha: Path) -> None:
        self.name = name
        self._video, self._alpha = video, alpha
        self.left_out = ""

    @property
    def count(self) -> int:
        capture = cv2.VideoCapture(str(self._video))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return max(frames, 0)

    def samples(self) -> Iterator[Sample]:
        video, alpha = self._capture(self._video), self._capture(self._alpha)
        try:
            index = 0
            while True:
                has_picture, bgr = video.read()
                has_truth, truth = alpha.read()
                if not (has_picture and has_truth):
                    break
                matrix = Matrix.BT601 if bgr.shape[0] <= SD_ROWS else Matrix.BT709
                # OpenCV decodes every video by BT.601, whatever its tags say. Going back the same way gives
                # the code values that are in the file; `matrix` says what they mean.
                planes = bgr_to_i420(np.asarray(bgr, np.uint8), Matrix.BT601)
                picture = I420.wrap(planes.buffer, planes.width, planes.height, matrix)
                yield Sample(f"{index:05d}", picture, np.asarray(truth[:, :, 0], np.uint8))
                index += 1
            if index == 0:
                empty = self._alpha if has_picture else self._video
                raise ConfigError(f"{empty}: no frame of it can be decoded")
            if has_picture != has_truth:
                longer, shorter = (self._video, self._alpha) if has_picture else (self._alpha, self._video)
                self.left_out = f"{shorter.name} ends after {index} frames, {longer.name} goes on"
        finally:
            video.release()
            alpha.release()

    @staticmethod
    def _capture(path: Path) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise ConfigError(f"{path}: cannot be decoded: expected a video that FFmpeg can read")
        return capture


class ImageSequence:
    """`rgb/` and `mask/`: files of the same name belong together; one without a partner is left out."""

    def __init__(self, name: str, pictures: Path, masks: Path) -> None:
        self.name = name
        self._pictures, self._masks = _images(pictures), _images(masks)
        self._both = sorted(self._pictures.keys() & self._masks.keys())
        if not self._both:
            raise ConfigError(f"{pictures.parent}: no picture and mask of the same name in rgb and mask")
        lonely = len(self._pictures) + len(self._masks) - 2 * len(self._both)
        self.left_out = f"{lonely} pictures or masks without a partner are left out" if lonely else ""

    @property
    def count(self) -> int:
        return len(self._both)

    def samples(self) -> Iterator[Sample]:
        for label in self._both:
            bgr = _read_image(self._pictures[label], cv2.IMREAD_COLOR)
            path = self._masks[label]
            truth = _read_image(path, cv2.IMREAD_GRAYSCALE)
            least = 1 if path.suffix.lower() == ".png" else JPEG_OBJECT
            person = np.where(truth >= least, np.uint8(255), np.uint8(0))
            yield Sample(label, bgr_to_i420(bgr, Matrix.BT601), person)


def _images(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}


def _read_image(path: Path, mode: int) -> U8:
    image = cv2.imread(str(path), mode)
    if image is None:
        raise ConfigError(f"{path}: cannot be read as a picture")
    return np.asarray(image, np.uint8)
