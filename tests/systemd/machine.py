"""A real systemd as process 1 of namespaces of its own: this machine is not touched, and at the end all is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

CHECKOUT = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
START_TIMEOUT_S = 30


def why_not() -> str | None:
    """Why there can be none here."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists():
        return "systemd is not installed"
    missing = [name for name in ("unshare", "nsenter", "systemd-sysusers") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if _cgroup2() is None:
        return "no cgroup2 is mounted"
    trial = "mount --make-rprivate / && mount -t tmpfs tmpfs /mnt"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "sh", "-c", trial], capture_output=True
    )
    return None if done.returncode == 0 else "no rights for namespaces and mounts"


def _cgroup2() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    return None


class Machine:
    """Boots with our units, those of `drop_ins` (unit -> text) beside them. Use as a context manager."""

    def __init__(self, drop_ins: Mapping[str, str]) -> None:
        self._drop_ins = drop_ins

    def __enter__(self) -> Machine:
        self._folder = Path(tempfile.mkdtemp(prefix="edge-seg-machine-"))
        units = self._folder / "units"
        units.mkdir()
        for unit in (CHECKOUT / "systemd").glob("*.service"):
            shutil.copy(unit, units)
        for unit_name, text in self._drop_ins.items():
            (units / f"{unit_name}.d").mkdir()
            (units / f"{unit_name}.d" / "test.conf").write_text(text)
        (self._folder / "machine").mkdir()
        cgroup2 = _cgroup2()
        assert cgroup2 is not None
        self._cgroup = cgroup2 / self._folder.name
        self._cgroup.mkdir()
        self._process = subprocess.Popen(
            [
                # Into a control group of its own first: it becomes the root of what systemd sees.
                "sh", "-c", f'echo $$ > "{self._cgroup}/cgroup.procs" && exec "$@"', "sh",
                "unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child=KILL",
                str(Path(__file__).with_name("boot.sh")), str(self._folder / "machine"), str(CHECKOUT), str(units),
            ],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            self._wait_for_boot()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_for_boot(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the machine could not be set up"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.pid = int(children.read_text().split()[0])
        self.root = Path(f"/proc/{self.pid}/root")
        self.wait_until(lambda: self.ask("systemctl", "is-active", "systemd-journald.service") == "active")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self.wait_until(self._is_swept)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, *command: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """A command inside, as root."""
        enter = ["nsenter", "-t", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=timeout_s)

    def beside(self, *command: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        """A command with this machine's files, in the other one's network."""
        return subprocess.run(
            ["nsenter", "-t", str(self.pid), "--net", *command],
            capture_output=True, text=True, timeout=timeout_s, cwd=CHECKOUT,
        )  # fmt: skip

    def ask(self, *command: str) -> str:
        return self.run(*command).stdout.strip()

    def show(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.ask("systemctl", "show", "--property", what, "--value", unit)

    def journal(self, unit: str) -> str:
        return self.ask("journalctl", "--no-pager", "-o", "cat", "-u", unit)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def wait_until(self, is_so: object, timeout_s: float = START_TIMEOUT_S) -> float:
        """Waits for a callable to be true. Returns how long that took, in seconds."""
        assert callable(is_so)
        started = time.monotonic()
        while not is_so():
            assert time.monotonic() - started < timeout_s, "it does not come to that"
            time.sleep(0.05)
        return time.monotonic() - started

    def _is_swept(self) -> bool:
        """Removes the control groups. They are busy for a moment after the last process has ended."""
        folders = [folder for folder in self._cgroup.rglob("*") if folder.is_dir()]
        try:
            for folder in [*sorted(folders, reverse=True), self._cgroup]:
                folder.rmdir()
        except OSError:
            return False
        return True
