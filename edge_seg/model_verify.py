"""How far two models agree on the same pictures: an int8 model against the float model it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_seg.colour import bgr_to_i420
from edge_seg.errors import ModelError
from edge_seg.model_card import ModelCard, ModelSettings, resolve_model
from edge_seg.segmenter import Segmenter, open_segmenter
from edge_seg.types import F32, I420, U8, Matrix

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
PERSON = 0.5


@dataclass(frozen=True)
class Row:
    """The agreement on one picture, or over all of them."""

    name: str
    iou: float
    """Intersection over union of the two masks at 0.5; 1 where both are empty."""
    mad: float
    """Mean absolute difference of the two probabilities."""
    worst: float
    """The largest difference at a pixel."""
    flipped: float
    """Share of the pixels that are person in one and not in the other."""


@dataclass(frozen=True)
class Agreement:
    """What `model verify` prints."""

    model: str
    against: str
    rows: tuple[Row, ...]
    mean: Row

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "against": self.against,
            "pictures": [row.__dict__ for row in self.rows],
            "mean": self.mean.__dict__,
        }

    def as_text(self) -> str:
        width = max(len(row.name) for row in (*self.rows, self.mean))
        lines = [f"{self.model} against {self.against}", f"{'':{width}}    IoU     MAD   worst  flipped"]
        for row in (*self.rows, self.mean):
            lines.append(
                f"{row.name:{width}}  {row.iou:.4f}  {row.mad:.4f}  {row.worst:.4f}  {row.flipped:7.2%}"
            )
        return "\n".join(lines)


def verify(path: Path, against: Path, images: Path, settings: ModelSettings | None = None) -> Agreement:
    """Run the models at `path` and `against`, each with a card beside it, on every picture in `images`.

    A float model without a card is taken to have the card of the other, save for its types.
    """
    settings = settings or ModelSettings()
    card = resolve_model(str(path.resolve()), (1, 1))
    other = _card_of(against, card)
    rows = []
    segmenters: dict[tuple[int, int], tuple[Segmenter, Segmenter]] = {}
    for name, picture in _pictures(images):
        # Only a letterboxed model cares for the picture's size, but then for all of it.
        letterboxed = card.input.letterbox or other.input.letterbox
        size = (picture.width, picture.height) if letterboxed else (1, 1)
        if size not in segmenters:
            segmenters = {size: (_open(card, settings, size), _open(other, settings, size))}
        ours, theirs = (segmenter.segment(picture) for segmenter in segmenters[size])
        rows.append(compare(name, ours, theirs))
    if not rows:
        raise ModelError(f"{images}: no pictures ({', '.join(PICTURES)})")
    mean = Row(
        "mean",
        iou=float(np.mean([row.iou for row in rows])),
        mad=float(np.mean([row.mad for row in rows])),
        worst=max(row.worst for row in rows),
        flipped=float(np.mean([row.flipped for row in rows])),
    )
    return Agreement(str(card.file), str(other.file), tuple(rows), mean)


def compare(name: str, ours: F32, theirs: F32) -> Row:
    """Two probabilities of one picture, shape (rows, cols) each, at the size of the first."""
    if ours.shape != theirs.shape:
        size = (ours.shape[1], ours.shape[0])
        theirs = np.asarray(cv2.resize(theirs, size, interpolation=cv2.INTER_LINEAR), np.float32)
    a, b = ours >= PERSON, theirs >= PERSON
    union = int((a | b).sum())
    difference = np.abs(ours - theirs)
    return Row(
        name,
        iou=float((a & b).sum() / union) if union else 1.0,
        mad=float(difference.mean()),
        worst=float(difference.max()),
        flipped=float((a != b).mean()),
    )


def _card_of(against: Path, card: ModelCard) -> ModelCard:
    if against.with_suffix(".yaml").is_file():
        return resolve_model(str(against.resolve()), (1, 1))
    plain = replace(
        card,
        name=against.stem,
        sha256="",
        input=replace(card.input, dtype=None),
        output=replace(card.output, dtype=None),
    )
    return resolve_model(str(against.resolve()), (1, 1), plain)


def _open(card: ModelCard, settings: ModelSettings, size: tuple[int, int]) -> Segmenter:
    return open_segmenter(replace(settings, file=str(card.file), card=card), size)


def _pictures(folder: Path) -> Iterator[tuple[str, I420]]:
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in PICTURES:
            continue
        bgr: U8 | None = cv2.imread(str(path), cv2.IMREAD_COLOR)  # type: ignore[assignment]
        if bgr is None:
            raise ModelError(f"{path}: not a picture that OpenCV can read")
        yield str(path.relative_to(folder)), bgr_to_i420(bgr, Matrix.BT601)
