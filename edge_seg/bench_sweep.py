"""The bench at other sizes, with more threads for the model, other flow grids and other mattes: one thing at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edge_seg import bench
from edge_seg.config import Config
from edge_seg.matte import Quality

SIZES = ((640, 360), (1280, 720), (1920, 1080))
THREADS = (1, 2)
BlockPx = Literal[2, 4, 8]
BLOCKS_PX: tuple[BlockPx, ...] = (2, 4, 8)
QUALITIES: tuple[Quality, ...] = ("fast", "balanced", "best")


@dataclass(frozen=True)
class Case:
    """What differs from row to row."""

    size: tuple[int, int]
    threads: int
    block_px: BlockPx
    matte: Quality


def cases(size: tuple[int, int], config: Config) -> list[Case]:
    """All sizes with one thread and two; then, at `size` and with one thread, all flow grids and all mattes."""
    usual = Case(size, 1, config.flow.block_px, config.matte.quality)
    sizes = SIZES if size in SIZES else (size, *SIZES)
    wanted = [replace(usual, size=s, threads=t) for s in sizes for t in THREADS]
    wanted += [replace(usual, block_px=b) for b in BLOCKS_PX]
    wanted += [replace(usual, matte=q) for q in QUALITIES]
    return list(dict.fromkeys(wanted))


def run(config: Config, clip: Path, size: tuple[int, int], frames: int) -> Iterator[dict[str, Any]]:
    """A row for each case: what it is, and what `bench --json` says of it, but for the memory: that is the peak of
    them all."""
    for case in cases(size, config):
        changed = config.model_copy(
            update={
                "model": replace(config.model, threads=case.threads),
                "flow": replace(config.flow, block_px=case.block_px),
                "matte": replace(config.matte, quality=case.matte),
            }
        )
        result = bench.run(changed, clip, case.size, frames).as_json()
        del result["peak_rss_mb"]
        yield {**result, **asdict(case), "size": result["size"]}


def table(rows: list[dict[str, Any]]) -> str:
    """Medians in ms."""
    stages = ("pyramid", "flow", "fusion", "matte", "composite")
    lines = [
        f"{'size':10}{'threads':>8}{'grid px':>8} {'matte':9}{'invoke':>8}"
        + "".join(f"{stage:>10}" for stage in stages)
        + f"{'copy':>8}{'comp/copy':>10}{'rest/invoke':>12}"
    ]
    for row in rows:
        lines.append(
            f"{row['size']:10}{row['threads']:8}{row['block_px']:8} {row['matte']:9}"
            + f"{row['model']['invoke_ms']['p50']:8.3f}"
            + "".join(f"{row['stages'][stage]['p50']:10.3f}" for stage in stages)
            + f"{row['memcpy_ms']['p50']:8.3f}{row['composite_over_memcpy']:10.2f}{row['overhead_over_invoke']:12.2f}"
        )
    return "\n".join(lines)
