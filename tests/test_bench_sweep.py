"""What the sweep of the bench varies, and what it prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_seg import bench, bench_sweep
from edge_seg.backgrounds import BackgroundSettings
from edge_seg.bench import BenchResult
from edge_seg.config import Config
from edge_seg.sources import SyntheticSettings

CONFIG = Config(source=SyntheticSettings(), background=BackgroundSettings(type="colour"))


def test_one_thing_differs_at_a_time_and_nothing_is_measured_twice() -> None:
    cases = bench_sweep.cases((1280, 720), CONFIG)
    usual = bench_sweep.Case((1280, 720), 1, CONFIG.flow.block_px, CONFIG.matte.quality)
    assert len(set(cases)) == len(cases)
    assert usual in cases
    for wanted in (
        replace(usual, size=(1920, 1080), threads=2),
        replace(usual, threads=2),
        replace(usual, block_px=8),
        replace(usual, matte="best"),
    ):
        assert wanted in cases


def test_a_size_of_ones_own_is_measured_too() -> None:
    assert {case.size for case in bench_sweep.cases((800, 600), CONFIG)} == {(800, 600), *bench_sweep.SIZES}


def test_every_case_is_run_with_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, str, tuple[int, int]]] = []

    def run(config: Config, clip: Path, size: tuple[int, int], frames: int) -> BenchResult:
        seen.append((config.model.threads, config.flow.block_px, config.matte.quality, size))
        stages = dict.fromkeys(("pyramid", "flow", "fusion", "matte", "composite"), (0.25, 0.5))
        return BenchResult(
            runtime="none",
            model="m",
            size=size,
            invoke_ns=[2_000_000],
            stages=stages,
            frame_ns=[5_000_000],
            overhead_ns=[1_000_000],
            composite_ns=[250_000],
            memcpy_ns=[50_000],
        )

    monkeypatch.setattr(bench, "run", run)
    rows = list(bench_sweep.run(CONFIG, Path("clip"), (1280, 720), 3))
    cases = bench_sweep.cases((1280, 720), CONFIG)
    assert seen == [(case.threads, case.block_px, case.matte, case.size) for case in cases]
    assert rows[0]["overhead_over_invoke"] == 0.5
    printed = bench_sweep.table(rows).splitlines()
    assert len(printed) == len(rows) + 1
    assert printed[1].split() == [
        "640x360", "1", "4", "balanced", "2.000", *["0.250"] * 5, "0.050", "5.00", "0.50",
    ]  # fmt: skip
