"""So many viewers over TCP in one process, who read and throw away: `python -m benchmarks.crowd URL COUNT`.

Prints `playing` once all of them play, and ends when it is terminated or the server ends.
"""

from __future__ import annotations

import selectors
import sys

from tests.rtsp_client import RtspClient


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    selector = selectors.DefaultSelector()
    clients = [RtspClient(url) for _ in range(count)]
    for client in clients:
        client.play()
        client.socket.setblocking(False)
        selector.register(client.socket, selectors.EVENT_READ)
    print("playing", flush=True)
    while True:
        for key, _ in selector.select(1):
            if not key.fileobj.recv(262_144):  # type: ignore[union-attr]
                sys.exit("the server ended a connection")


if __name__ == "__main__":
    main()
