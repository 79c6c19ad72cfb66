"""The unit files by themselves, as systemd's own tools judge them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_seg.errors import EXIT_CONFIG
from tests.systemd.machine import CHECKOUT

UNITS = sorted((CHECKOUT / "systemd").glob("*.service"))
MOST_EXPOSED = 2.0

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture(params=UNITS, ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """With a program that is here, where the installed one is not."""
    text = request.param.read_text().replace("/opt/edge-seg/bin/edge-seg", sys.executable)
    file = tmp_path / request.param.name
    file.write_text(text)
    return file


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def test_nothing_in_it_is_misspelt(unit: Path) -> None:
    done = analyze("verify", "--recursive-errors=no", str(unit))
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("WatchdogSec", "WatchDogSec"))
    assert analyze("verify", "--recursive-errors=no", str(unit)).returncode != 0


def test_it_is_shut_in(unit: Path) -> None:
    # Without its default dependencies, systemd-analyze leaves four settings out of account. They are to count.
    unit.write_text(re.sub(r"(?m)^DefaultDependencies=no\n", "", unit.read_text()))
    done = analyze(
        "security", "--offline=yes", "--no-pager", f"--threshold={MOST_EXPOSED * 10:.0f}", str(unit)
    )
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout


def test_both_units_are_the_same_but_for_the_instances_name() -> None:
    one, several = (
        [line for line in (CHECKOUT / "systemd" / name).read_text().splitlines() if "=" in line[:30]]
        for name in ("edge-seg.service", "edge-seg@.service")
    )
    assert [line.split("=")[0] for line in one] == [line.split("=")[0] for line in several]
    other = {a.split("=")[0] for a, b in zip(one, several, strict=True) if a != b}
    assert other == {"Description", "ExecStart", "StateDirectory", "WorkingDirectory"}


def test_a_wrong_configuration_is_not_tried_again() -> None:
    for unit in UNITS:
        assert f"RestartPreventExitStatus={EXIT_CONFIG}\n" in unit.read_text()
