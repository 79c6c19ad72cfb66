"""Calls that a driver can make hang, with a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable


def bounded(call: Callable[[], object], seconds: float) -> bool:
    """Runs a call that a driver can make hang, and says if it came back in time."""
    thread = threading.Thread(target=call, name="driver", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
