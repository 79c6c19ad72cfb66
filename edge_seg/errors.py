"""The errors a user can meet, each with the exit status of the command that it ends."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h; systemd's RestartPreventExitStatus names it


class EdgeSegError(Exception):
    """An error whose message says what happened, to what, and what to do about it."""

    exit_status = EXIT_FAILED


class ConfigError(EdgeSegError):
    """The configuration, or a file that it names, cannot be used. `problems` holds one line each."""

    exit_status = EXIT_CONFIG

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StaleKernel(EdgeSegError):
    """A compiled part of the package does not belong to the rest of it."""


class ModelError(EdgeSegError):
    """The mask model cannot be loaded, does not fit its card, or failed in an inference."""


class SourceLost(EdgeSegError):
    """A source delivers no more frames: unplugged, ended, stalled, refused."""


class SinkError(EdgeSegError):
    """An output cannot be opened or has failed.

    `permanent`: a mistake that no retry will mend (a port in use, no rights, no such element). At the start it ends
    the daemon; later it is retried like any other, since somebody may mend it meanwhile.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
