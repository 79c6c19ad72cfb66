"""Tries come later and later, never in step, and never stop."""

import pytest

from edge_seg.backoff import BackOff


def paused(failures: int, tried_s: float = 0.0) -> set[float]:
    """Twenty pauses after so many failures."""
    found = set()
    for _ in range(20):
        backoff = BackOff(0.5, 10.0)
        backoff.failures = failures
        found.add(backoff.pause_s(tried_s))
    return found


@pytest.mark.parametrize(("failures", "longest_s"), [(0, 0.5), (3, 4.0), (5, 10.0), (5000, 10.0)])
def test_pauses_double_up_to_the_longest_and_differ(failures: int, longest_s: float) -> None:
    pauses = paused(failures)
    assert len(pauses) > 1
    assert all(longest_s / 2 <= pause <= longest_s for pause in pauses)


def test_each_failure_counts_until_one_try_succeeds() -> None:
    backoff = BackOff(1.0, 60.0)
    longest = [1, 2, 4, 8, 16, 32, 60, 60]
    assert all(most / 2 <= backoff.pause_s() <= most for most in longest)
    assert backoff.failures == len(longest)
    backoff.succeeded()
    assert backoff.pause_s() <= 1.0


def test_what_a_try_has_waited_in_vain_is_not_waited_again() -> None:
    assert all(2 <= pause <= 7 for pause in paused(10, tried_s=3))
    assert paused(10, tried_s=12) == {0.5}
    assert all(pause <= 0.5 for pause in paused(0, tried_s=12))
