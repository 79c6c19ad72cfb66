import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_seg import logs


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, hooks = logging.getLogger(), (threading.excepthook, sys.excepthook)
    level, handlers = root.level, root.handlers[:]
    yield
    root.handlers[:], threading.excepthook, sys.excepthook = handlers, *hooks
    root.setLevel(level)


def test_json_is_an_object_a_line_with_the_fields_by_themselves() -> None:
    stream = io.StringIO()
    logs.start(logs.LogSettings(format="json"), stream)
    log = logging.getLogger("edge_seg.supervisor")
    log.warning("source lost: %s", "unplugged\nbadly", extra={"event": "source_lost", "after_s": 1.5})
    log.debug("not asked for")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "warning",
        "logger": "edge_seg.supervisor",
        "message": "source lost: unplugged\nbadly",
        "event": "source_lost",
        "after_s": 1.5,
    }


def test_a_thread_that_dies_is_a_line_of_json_with_its_traceback() -> None:
    stream = io.StringIO()
    logs.start(logs.LogSettings(format="json"), stream)
    thread = threading.Thread(target=lambda: 1 / 0, name="doomed")
    thread.start()
    thread.join()
    entry = json.loads(stream.getvalue())
    assert entry["level"] == "critical"
    assert "doomed" in entry["message"]
    assert "ZeroDivisionError" in entry["traceback"]


def test_text_is_for_people() -> None:
    stream = io.StringIO()
    logs.start(logs.LogSettings(level="warning"), stream)
    logging.getLogger("edge_seg.x").info("quiet")
    logging.getLogger("edge_seg.x").warning("loud", extra={"event": "noise"})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("WARNING edge_seg.x: loud")


def test_the_journal_is_recognised_by_the_inode_of_standard_error(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert logs.is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not logs.is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not logs.is_journal(stream, {"JOURNAL_STREAM": "nonsense"})
        assert not logs.is_journal(stream, {})
    assert not logs.is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_the_journal_gets_every_field_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    systemd, journal = ModuleType("systemd"), ModuleType("systemd.journal")
    journal.send = lambda message, **fields: sent.append((message, fields))  # type: ignore[attr-defined]
    systemd.journal = journal  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "systemd", systemd)
    monkeypatch.setitem(sys.modules, "systemd.journal", journal)
    logs.start(logs.LogSettings(format="journal"))
    logging.getLogger("edge_seg.engine").error("no luck", extra={"event": "bad_luck"})
    ((message, fields),) = sent
    assert message == "no luck"
    assert fields["PRIORITY"] == "3"
    assert fields["EVENT"] == "bad_luck"
    assert fields["LOGGER"] == "edge_seg.engine"
    assert fields["SYSLOG_IDENTIFIER"] == "edge-seg"
    assert fields["CODE_FILE"].endswith("test_logs.py")


def test_without_python3_systemd_the_journal_gets_lines_with_their_priority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "systemd", None)
    stream = io.StringIO()
    logs.start(logs.LogSettings(format="journal"), stream)
    logging.getLogger("edge_seg.x").warning("two\nlines")
    assert stream.getvalue().splitlines() == ["<4>edge_seg.x: two", "<4>lines"]
    assert [logs.priority(level) for level in (10, 20, 25, 30, 40, 50, 5)] == [7, 6, 6, 4, 3, 2, 7]
