"""A network that drops every packet: a namespace of its own behind a pair of virtual cards. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType

DROP = """
table inet cut {
  chain in { type filter hook input priority 0; policy drop; }
  chain out { type filter hook output priority 0; policy drop; }
}
"""


class Namespace:
    """A host at `far`, reached from `near`. Use as a context manager."""

    def __init__(self) -> None:
        self._name = f"edgeseg-{os.getpid()}"
        self._card = f"es{os.getpid() % 10_000_000}"
        # Of the range for benchmarks of networks (RFC 2544), which is nobody's.
        net = f"198.18.{os.getpid() % 256}"
        self.near, self.far = f"{net}.1", f"{net}.2"

    @staticmethod
    def problem() -> str | None:
        """Why there can be none here."""
        if os.geteuid() != 0:
            return "a network namespace needs root"
        missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
        return f"needs {' and '.join(missing)} (iproute2, nftables)" if missing else None

    @property
    def prefix(self) -> tuple[str, ...]:
        """What runs a command in it."""
        return "ip", "netns", "exec", self._name

    def cut(self) -> None:
        """From now on it hears nothing and says nothing; no connection learns of it."""
        subprocess.run([*self.prefix, "nft", "-f", "-"], input=DROP, text=True, check=True)

    def mend(self) -> None:
        subprocess.run([*self.prefix, "nft", "delete", "table", "inet", "cut"], check=True)

    def __enter__(self) -> Namespace:
        card, peer = self._card, f"{self._card}p"
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", card, "type", "veth", "peer", "name", peer, "netns", self._name)
        _run("ip", "addr", "add", f"{self.near}/30", "dev", card)
        _run("ip", "link", "set", card, "up")
        _run(*self.prefix, "ip", "addr", "add", f"{self.far}/30", "dev", peer)
        _run(*self.prefix, "ip", "link", "set", peer, "up")
        _run(*self.prefix, "ip", "link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["ip", "link", "del", self._card], check=False)
        subprocess.run(["ip", "netns", "del", self._name], check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
