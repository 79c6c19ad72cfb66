import math

import pytest

from edge_seg.timings import StageTimes, percentiles_ms


def test_percentiles_are_per_stage_in_milliseconds() -> None:
    times = StageTimes()
    for milliseconds in range(1, 102):
        times.record("flow", milliseconds * 1_000_000)
    times.record("matte", 2_500_000)
    assert times.percentiles_ms(50, 99) == {"flow": (51.0, 100.0), "matte": (2.5, 2.5)}
    assert times.summary() == "flow 51.00/100.00, matte 2.50/2.50"


def test_only_the_newest_samples_count() -> None:
    times = StageTimes(kept=3)
    for milliseconds in (100, 1, 1, 1):
        times.record("flow", milliseconds * 1_000_000)
    assert times.percentiles_ms(100) == {"flow": (1.0,)}


def test_a_block_that_raises_is_measured_too() -> None:
    times = StageTimes()
    with pytest.raises(KeyError), times.measure("flow"):
        raise KeyError
    assert list(times.percentiles_ms(50)) == ["flow"]


def test_nothing_measured_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in percentiles_ms([], 50, 99))
