import os
import signal
import threading
from pathlib import Path

import pytest

from edge_seg.config import Config
from edge_seg.config_watch import SETTLE_NS, ConfigWatch, FileWatch
from edge_seg.errors import ModelError
from edge_seg.reload import Change, ReloadReport

GOOD = "source: {type: synthetic}\n"


def test_a_file_is_read_once_it_has_come_to_rest(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    watch = FileWatch(file)
    assert not watch.look(0)
    file.write_text(GOOD + "# first half")
    assert not watch.look(1)
    file.write_text(GOOD + "# first half and second half")
    assert not watch.look(SETTLE_NS)
    assert not watch.look(2 * SETTLE_NS - 1)
    assert watch.look(2 * SETTLE_NS)
    assert not watch.look(3 * SETTLE_NS)


def test_a_file_that_is_replaced_or_away_for_a_while_is_followed(tmp_path: Path) -> None:
    file, other = tmp_path / "c.yaml", tmp_path / "c.yaml.new"
    file.write_text(GOOD)
    watch = FileWatch(file)
    other.write_text(GOOD)
    os.utime(other, ns=(1, os.stat(file).st_mtime_ns))  # same length, same time: another file all the same
    other.rename(file)
    assert not watch.look(0)
    assert watch.look(SETTLE_NS)
    file.unlink()
    assert not watch.look(2 * SETTLE_NS)
    assert not watch.look(4 * SETTLE_NS)
    file.write_text(GOOD)
    assert not watch.look(5 * SETTLE_NS)
    assert watch.look(6 * SETTLE_NS)


def test_what_was_read_for_another_reason_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    watch = FileWatch(file)
    file.write_text(GOOD + "# more")
    watch.seen()
    assert not watch.look(0)
    assert not watch.look(SETTLE_NS)


class Announcer:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.changed = threading.Condition()

    def reloading(self) -> None:
        self.told.append("reloading")

    def reloaded(self, outcome: str) -> None:
        with self.changed:
            self.told.append(outcome)
            self.changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.told) >= count, 10), self.told


def test_it_reloads_when_asked_and_says_how_that_went(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    applied: list[Config] = []

    def apply(config: Config) -> ReloadReport:
        if config.model.threads == 7:
            raise ModelError("the model is refused")
        if config.model.threads == 8:
            raise ZeroDivisionError
        applied.append(config)
        return ReloadReport((Change("model.threads", "model"),))

    announcer = Announcer()
    with ConfigWatch(file, Config, apply, announcer) as watch:
        watch.ask()
        announcer.wait_for(2)
        file.write_text(GOOD + "backgroud: {}\nmatte: {quality: bets}\n")
        watch.ask()
        announcer.wait_for(4)
        file.write_text(GOOD + "model: {threads: 7}\n")
        watch.ask()
        announcer.wait_for(6)
        file.write_text(GOOD + "model: {threads: 8}\n")  # a defect costs this reload only
        watch.ask()
        announcer.wait_for(8)
        file.write_text(GOOD)
        watch.ask()
        announcer.wait_for(10)
    assert announcer.told[0::2] == ["reloading"] * 5
    good, bad, refused, defect, again = announcer.told[1::2]
    assert good == again == "model.threads (model swapped)"
    assert bad.startswith(f"refused: {file}:3: matte.quality: got")
    assert bad.endswith("(and 1 more)")
    assert refused == "refused: the model is refused"
    assert "defect" in defect
    assert len(applied) == 2
    assert any("c.yaml:2: backgroud: unknown key" in line for line in caplog.messages)


def test_a_storm_of_signals_cannot_hang_the_handler(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    announcer = Announcer()
    with ConfigWatch(file, Config, lambda _: ReloadReport(), announcer) as watch:
        before = signal.signal(signal.SIGHUP, lambda *_: watch.ask())
        try:
            for _ in range(50):
                signal.raise_signal(signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)
        announcer.wait_for(2)
    assert announcer.told[1] == "nothing has changed"


def test_with_watch_a_changed_file_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD + "reload: {watch: true}\n")
    config = Config(reload={"watch": True})  # type: ignore[arg-type]
    announcer = Announcer()
    with ConfigWatch(file, lambda: config, lambda _: ReloadReport(), announcer):
        file.write_text(GOOD + "reload: {watch: true}\nmatte: {quality: fast}\n")
        announcer.wait_for(2)
