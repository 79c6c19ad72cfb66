from edge_seg.budget import Change, Controller, Plan, ladder
from edge_seg.pacing import HAND_OVER_MARGIN_NS, Pacer

MS = 1_000_000
BUDGET_NS = 40 * MS


def pacer() -> Pacer:
    return Pacer(BUDGET_NS, Controller(ladder("balanced", 4), BUDGET_NS))


def test_the_wait_for_the_mask_leaves_room_for_what_comes_after_it() -> None:
    pace = pacer()
    assert pace.mask_deadline_ns(0) == BUDGET_NS - HAND_OVER_MARGIN_NS
    pace.left(captured_ns=0, tail_started_ns=20 * MS, work_ns=12 * MS, now_ns=30 * MS)
    assert pace.mask_deadline_ns(100 * MS) == 100 * MS + 30 * MS - HAND_OVER_MARGIN_NS


def test_a_slower_machine_is_followed_at_once_and_a_faster_one_slowly() -> None:
    pace = pacer()
    pace.left(0, 0, 0, 10 * MS)
    pace.left(33 * MS, 40 * MS, 0, 41 * MS)
    reserved = BUDGET_NS - HAND_OVER_MARGIN_NS - pace.mask_deadline_ns(0)
    assert 9 * MS < reserved < 10 * MS
    pace.left(66 * MS, 70 * MS, 0, 90 * MS)
    assert BUDGET_NS - HAND_OVER_MARGIN_NS - pace.mask_deadline_ns(0) == 20 * MS


def test_a_frame_is_late_only_when_it_left_after_its_budget() -> None:
    pace = pacer()
    assert pace.left(0, 0, 0, BUDGET_NS) == (True, None)
    assert pace.left(0, 0, 0, BUDGET_NS + 1) == (False, None)
    assert pace.misses == 1


def test_work_that_does_not_fit_between_two_frames_changes_the_plan() -> None:
    pace = pacer()
    changes: list[Change] = []
    for frame in range(10):
        captured_ns = frame * 33 * MS
        _, change = pace.left(captured_ns, captured_ns, 32 * MS, captured_ns + 32 * MS)
        changes += [change] if change else []
    assert changes[0].plan == Plan("fast", 4, 1)
