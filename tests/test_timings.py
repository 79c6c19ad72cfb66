import math

import pytest

from edge_seg.timings import BOUNDS_NS, FrameRate, StageTimes, percentiles_ms


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


def test_histograms_count_all_samples_since_the_start_though_few_are_kept() -> None:
    times = StageTimes(kept=2)
    for milliseconds in (0.05, 0.1, 4, 4, 5000):
        times.record("flow", round(milliseconds * 1e6))
    histogram = times.histograms()["flow"]
    assert len(histogram.counts) == len(BOUNDS_NS) + 1
    assert sum(histogram.counts) == 5
    assert histogram.counts[0] == 2  # a bound belongs to its bucket, as `le` says
    assert histogram.counts[BOUNDS_NS.index(5_000_000)] == 2
    assert histogram.counts[-1] == 1
    assert histogram.sum_ns == 5_008_150_000


def test_the_rate_falls_when_frames_stay_away() -> None:
    rate = FrameRate()
    assert rate.per_second(0) == 0
    for index in range(100):
        rate.tick(index * 40_000_000)
    last_ns = 99 * 40_000_000
    assert rate.per_second(last_ns + 1_000_000) == pytest.approx(25)
    assert rate.per_second(last_ns + 500_000_000) == pytest.approx(2)
    assert rate.per_second(last_ns + 3_000_000_000) == 0
