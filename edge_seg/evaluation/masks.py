"""The model's mask of every frame of a clip, run once and then kept, by model and by pictures."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from edge_seg.evaluation.clip import Clip, Tick
from edge_seg.segmenter import Segmenter
from edge_seg.types import F32

FORMAT = 1
"""To be raised when a change of `segmenter.py` changes the masks of the same model and pictures."""


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/edge-seg/masks, or ~/.cache/edge-seg/masks."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "edge-seg" / "masks"


def model_masks(clip: Clip, segmenter: Segmenter, model: str, folder: Path | None, tick: Tick) -> F32:
    """The mask of each frame. Shape: (frames, rows, cols), float32 in [0, 1].

    `model` identifies the model: its hash and all else that its masks depend on. Masks are looked up in
    `folder`, and put there; None is no cache.
    """
    file = folder / f"{key(clip, segmenter, model)}.npz" if folder else None
    if file is not None and (known := _read(file, clip.truth.shape)) is not None:
        for _ in range(len(clip)):
            tick()
        return known
    masks = np.empty(clip.truth.shape, np.float32)
    for index, small in enumerate(clip.smalls):
        masks[index] = segmenter.infer(small)
        tick()
    if file is not None:
        _write(file, masks)
    return masks


def key(clip: Clip, segmenter: Segmenter, model: str) -> str:
    """The hash of all that the masks depend on: the model, its runtime, the pictures that it sees."""
    digest = hashlib.sha256()
    how = (FORMAT, model, segmenter.runtime_name, segmenter.delegates, clip.truth.shape)
    digest.update(repr(how).encode())
    for small in clip.smalls:
        digest.update(small.matrix.value.encode())
        for plane in (small.y, small.u, small.v):
            digest.update(plane.tobytes())
    return digest.hexdigest()[:32]


def _read(file: Path, shape: tuple[int, ...]) -> F32 | None:
    """What was kept; None where there is nothing, or nothing whole (an old version's, a damaged disk's)."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            masks = np.asarray(kept["masks"], np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return masks if masks.shape == shape else None


def _write(file: Path, masks: F32) -> None:
    """In one step, so that two runs at the same time never see half a file. A full disk is no error."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".tmp", delete=False) as temporary:
            np.savez_compressed(temporary, masks=masks)
        os.replace(temporary.name, file)
    except OSError:
        return
