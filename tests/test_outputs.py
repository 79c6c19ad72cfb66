"""Several outputs at once, of which some hang, break or cannot be opened: the others never notice."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edge_seg.errors import EdgeSegError, SinkError
from edge_seg.outputs import Outputs, Patience
from edge_seg.sinks.base import OutputFormat, Sink
from edge_seg.types import I420, Matrix

SMALL = OutputFormat(64, 48, Fraction(30), Matrix.BT709)
LARGE = OutputFormat(96, 64, Fraction(30), Matrix.BT709)
QUICK = Patience(first_retry_s=0.01, longest_retry_s=0.02, close_s=0.5, steady_s=0.0)


@dataclass(frozen=True)
class Settings:
    """What a scripted output is configured with."""

    name: str = "scripted"
    bitrate: int = 1


@dataclass
class Script:
    """What happens to an output, and what it saw. Shared by the sinks of all tries."""

    open_errors: list[EdgeSegError] = field(default_factory=list)
    push_errors: list[Exception] = field(default_factory=list)
    stuck: threading.Event | None = None
    """A push waits for this."""
    adjustable: bool = False
    wants: bool = True
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, *call: Any) -> None:
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 10) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout_s), self.calls

    def lumas(self) -> list[int]:
        return [call[1] for call in self.calls if call[0] == "push"]

    def count(self, what: str) -> int:
        return sum(call[0] == what for call in self.calls)


class Scripted(Sink):
    def __init__(self, script: Script, name: str = "scripted", settings: Any = None) -> None:
        self.name = name
        self.script = script
        self.settings = settings

    @property
    def wants_pictures(self) -> bool:  # type: ignore[override]
        return self.script.wants

    def open(self, output: OutputFormat) -> None:
        self.script.note("open", output, self.settings)
        if self.script.open_errors:
            raise self.script.open_errors.pop(0)

    def reformat(self, output: OutputFormat) -> None:
        self.script.note("reformat", output)

    def push(self, picture: I420, captured_ns: int) -> None:
        if self.script.stuck is not None and not self.script.stuck.is_set():
            self.script.note("stuck")
            self.script.stuck.wait()
        if self.script.push_errors:
            raise self.script.push_errors.pop(0)
        self.script.note("push", int(np.median(picture.y)), captured_ns, picture)

    def close(self) -> None:
        self.script.note("close")

    def adjust(self, settings: Any) -> bool:
        self.script.note("adjust", settings)
        return self.script.adjustable


def picture(luma: int, output: OutputFormat = SMALL) -> I420:
    return I420.filled(output.width, output.height, (luma, 128, 128))


def feed(outputs: Outputs, enough: Callable[[], object], timeout_s: float = 20) -> int:
    """Ticks and pushes until `enough`. Returns how many pictures that took."""
    deadline, pushed = time.monotonic() + timeout_s, 0
    while not enough():
        assert time.monotonic() < deadline, outputs.status()
        outputs.tick()
        outputs.push(picture(50), pushed)
        pushed += 1
        threading.Event().wait(0.002)
    return pushed


def running(outputs: Outputs) -> None:
    """Waits until all outputs are open."""
    deadline = time.monotonic() + 10
    while any(status.state != "running" for status in outputs.status()):
        assert time.monotonic() < deadline, outputs.status()
        threading.Event().wait(0.002)


def test_a_picture_reaches_all_outputs_in_one_copy_that_is_theirs() -> None:
    scripts = Script(), Script()
    outputs = Outputs([Scripted(script) for script in scripts], QUICK)
    outputs.reformat(SMALL)
    running(outputs)
    original = picture(40)
    outputs.push(original, 7)
    original.y[:] = 0
    for script in scripts:
        script.wait_for(lambda script=script: script.count("push") == 1)
        assert script.calls[-1][1:3] == (40, 7)
    assert scripts[0].calls[-1][3] is scripts[1].calls[-1][3]
    assert [status.name for status in outputs.status()] == ["scripted", "scripted-2"]
    outputs.close()
    assert all(script.calls[-1] == ("close",) for script in scripts)


def test_an_output_that_does_not_close_is_left_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Clinging(Scripted):
        def close(self) -> None:
            super().close()
            raise SinkError("the driver does not let go")

    script = Script(push_errors=[SinkError("broken")])
    outputs = Outputs([Clinging(script)], QUICK)
    outputs.reformat(SMALL)
    thread = outputs._workers[0]._life
    feed(outputs, lambda: script.count("push") > 0)
    assert outputs._workers[0]._life is thread  # it did not die of it
    outputs.close()
    assert "output scripted: the driver does not let go" in caplog.text


def test_an_output_that_is_stuck_holds_up_neither_the_loop_nor_another_output() -> None:
    stuck, well = Script(stuck=threading.Event()), Script()
    outputs = Outputs([Scripted(stuck, "stuck"), Scripted(well, "well")], QUICK)
    outputs.reformat(SMALL)
    running(outputs)
    slowest = 0.0
    for number in range(30):
        if number == 1:
            stuck.wait_for(lambda: stuck.count("stuck") == 1)
        started = time.monotonic()
        outputs.push(picture(50), number)
        slowest = max(slowest, time.monotonic() - started)
        well.wait_for(lambda number=number: well.count("push") == number + 1)
    assert slowest < 0.2
    status = {one.name: one for one in outputs.status()}
    assert status["stuck"].frames == 0
    # One in its hands, two that wait.
    assert status["stuck"].dropped == 27
    assert (status["well"].frames, status["well"].dropped) == (30, 0)
    assert status["well"].last_left_ns is not None
    started = time.monotonic()
    outputs.close()
    assert time.monotonic() - started < 2
    assert well.calls[-1] == ("close",)
    assert stuck.stuck is not None
    stuck.stuck.set()


def test_an_output_that_hangs_too_long_is_left_behind_and_opened_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(stuck=threading.Event())
    outputs = Outputs([Scripted(script)], QUICK)
    outputs.reformat(SMALL)
    running(outputs)
    outputs.push(picture(50), 0)
    script.wait_for(lambda: script.calls[-1] == ("stuck",))
    outputs.tick()
    assert script.count("open") == 1
    outputs.tick(time.monotonic_ns() + round((QUICK.push_s + 1) * 1e9))
    script.wait_for(lambda: script.count("open") == 2)
    assert "output scripted lost, trying again until it is back: scripted: hangs since 10 s in" in caplog.text
    hanging, script.stuck = script.stuck, None
    feed(outputs, lambda: script.count("push") >= 3)
    assert hanging is not None
    hanging.set()
    outputs.close()


def test_a_broken_output_comes_back_alone_with_one_line_for_the_loss_and_one_for_the_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    broken = Script(push_errors=[SinkError("the server hung up")], open_errors=[])
    well = Script()
    outputs = Outputs([Scripted(broken, "push"), Scripted(well, "well")], QUICK)
    outputs.reformat(SMALL)
    running(outputs)
    broken.open_errors[:] = [SinkError("no route"), SinkError("no route", permanent=True)]
    feed(outputs, lambda: broken.count("push") >= 3)
    feed(outputs, lambda: any("back after" in record.message for record in caplog.records))
    outputs.close()
    assert well.count("open") == 1
    assert broken.count("open") == 4
    assert broken.count("close") == 4
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "output push lost, trying again until it is back: the server hung up"
    assert lines[1].startswith("output push back after ")
    assert len(lines) == 2
    (first, _) = outputs.status()
    assert first.restarts == 1


def test_a_defect_in_an_output_is_a_loss_like_any_other() -> None:
    script = Script(push_errors=[ZeroDivisionError("a defect")])
    seen: list[Any] = []
    hook, threading.excepthook = threading.excepthook, seen.append
    try:
        outputs = Outputs([Scripted(script)], QUICK)
        outputs.reformat(SMALL)
        running(outputs)
        feed(outputs, lambda: script.count("push") >= 1)
        outputs.close()
    finally:
        threading.excepthook = hook
    assert [one.exc_type for one in seen] == [ZeroDivisionError]
    assert script.count("open") == 2


def test_a_mistake_at_the_start_ends_the_daemon_and_anything_else_is_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mistaken = Script(open_errors=[SinkError("the port is in use", permanent=True)])
    outputs = Outputs([Scripted(mistaken)], QUICK)
    outputs.reformat(SMALL)
    with pytest.raises(SinkError, match="the port is in use"):
        feed(outputs, lambda: False)
    outputs.close()
    assert (mistaken.count("open"), mistaken.count("close")) == (1, 1)

    away = Script(open_errors=[SinkError("no monitor"), SinkError("no monitor")])
    outputs = Outputs([Scripted(away)], QUICK)
    outputs.reformat(SMALL)
    feed(outputs, lambda: away.count("push") >= 1)
    outputs.close()
    assert away.count("open") == 3
    assert caplog.text.count("output scripted not there yet, trying again until it is: no monitor") == 1


def test_formats_and_pictures_arrive_in_the_order_in_which_they_were_given() -> None:
    script = Script(stuck=threading.Event())
    outputs = Outputs([Scripted(script)], QUICK)
    outputs.reformat(SMALL)
    running(outputs)
    outputs.push(picture(1), 1)
    script.wait_for(lambda: script.calls[-1] == ("stuck",))
    outputs.push(picture(2), 2)
    outputs.reformat(LARGE)
    outputs.push(picture(3, LARGE), 3)
    assert script.stuck is not None
    script.stuck.set()
    script.wait_for(lambda: script.count("push") == 3)
    assert [call[:2] for call in script.calls[2:]] == [
        ("push", 1), ("push", 2), ("reformat", LARGE), ("push", 3),
    ]  # fmt: skip
    outputs.reformat(SMALL)  # without a picture, too
    script.wait_for(lambda: script.calls[-1] == ("reformat", SMALL))
    outputs.close()


def test_nothing_is_copied_while_nobody_wants_a_picture() -> None:
    idle = Script(wants=False)
    outputs = Outputs([Scripted(idle)], QUICK)
    outputs.reformat(SMALL)
    running(outputs)
    outputs.push(picture(1), 1)
    assert outputs.copies == 0
    idle.wants = True
    outputs.push(picture(2), 2)
    idle.wait_for(lambda: idle.lumas() == [2])
    assert outputs.copies == 1
    outputs.close()


def test_other_settings_touch_only_the_outputs_that_they_are_for() -> None:
    scripts: dict[str, Script] = {name: Script() for name in ("same", "live", "anew", "gone", "new")}
    scripts["live"].adjustable = True

    @dataclass(frozen=True)
    class Same(Settings):
        pass

    @dataclass(frozen=True)
    class Live(Settings):
        pass

    def build(settings: Any) -> Sink:
        return Scripted(scripts[settings.name], settings.name, settings)

    before = [Same("same"), Live("live", 1), Settings("anew", 1), Settings("gone")]
    outputs = Outputs(before, QUICK, build)  # type: ignore[arg-type]
    outputs.reformat(SMALL)
    running(outputs)

    @dataclass(frozen=True)
    class New(Settings):
        pass

    after = [New("new"), Live("live", 2), Settings("anew", 2), Same("same")]
    applied = outputs.apply(after)  # type: ignore[arg-type]
    assert applied.kept == ("same",)
    assert applied.changed == ("live", "anew")
    assert applied.opened == ("new",)
    assert applied.closed == ("gone",)
    scripts["gone"].wait_for(lambda: scripts["gone"].calls[-1] == ("close",))
    scripts["live"].wait_for(lambda: scripts["live"].calls[-1] == ("adjust", Live("live", 2)))
    scripts["anew"].wait_for(lambda: scripts["anew"].calls[-1] == ("open", SMALL, Settings("anew", 2)))
    scripts["new"].wait_for(lambda: scripts["new"].count("open") == 1)
    assert [status.name for status in outputs.status()] == ["new", "live", "anew", "same"]
    running(outputs)
    feed(outputs, lambda: all(script.count("push") for name, script in scripts.items() if name != "gone"))
    outputs.close()
    assert [scripts[name].count("open") for name in scripts] == [1, 1, 2, 1, 1]
    assert [scripts[name].count("close") for name in scripts] == [1, 1, 2, 1, 1]


def test_a_mistake_in_settings_that_came_later_ends_nothing() -> None:
    well, mistaken = Script(), Script(open_errors=[SinkError("the port is in use", permanent=True)])

    @dataclass(frozen=True)
    class Other(Settings):
        pass

    def build(settings: Any) -> Sink:
        return Scripted(mistaken if settings.name == "mistaken" else well, settings.name)

    outputs = Outputs([Settings("well")], QUICK, build)  # type: ignore[list-item]
    outputs.reformat(SMALL)
    running(outputs)
    outputs.apply([Settings("well"), Other("mistaken")])  # type: ignore[list-item]
    feed(outputs, lambda: mistaken.count("push") >= 1)
    outputs.close()
    assert mistaken.count("open") == 2
