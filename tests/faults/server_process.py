"""What the servers of the fault tests have in common: a process that is started, killed, frozen, and a password."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

from edge_seg import gstreamer

Self = TypeVar("Self", bound="ServerProcess")


class ServerProcess:
    """`python -m MODULE ARGUMENTS`, which prints its port first. Use as a context manager."""

    def __init__(self, module: str, prefix: Sequence[str] = ()) -> None:
        """`prefix`: a command that runs it somewhere else, in a network namespace of its own."""
        self.port = 0
        self._command = (*prefix, sys.executable, "-m", module)
        self._process: subprocess.Popen[str] | None = None

    def _arguments(self) -> Sequence[str]:
        """They end up in a command line; the port is in them, where it is to be the same again."""
        raise NotImplementedError

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Again on the port of the first time."""
        self._process = subprocess.Popen(
            [*self._command, *self._arguments()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self: Self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def protect(server: Any, factory: Any, role: str, user: str, password: str, digest: bool) -> None:
    """Only who knows the password gets at what the factory of a GstRtspServer makes."""
    _, rtsp, rtsp_types = gstreamer.load("GstRtspServer", "GstRtsp")
    token = rtsp.RTSPToken()
    token.set_string("media.factory.role", role)
    auth = rtsp.RTSPAuth()
    if digest:
        auth.set_supported_methods(rtsp_types.RTSPAuthMethod.DIGEST)
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(rtsp.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = rtsp.RTSPPermissions()
    permissions.add_permission_for_role(role, "media.factory.access", True)
    permissions.add_permission_for_role(role, "media.factory.construct", True)
    factory.set_permissions(permissions)
