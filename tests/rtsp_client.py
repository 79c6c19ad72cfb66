"""An RTSP client of plain sockets: for what well-behaved clients never do, and for what they do not show."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import struct
from types import TracebackType
from urllib.parse import urlsplit

TIMEOUT_S = 20.0


class RtspClient:
    """One connection. Use as a context manager."""

    def __init__(self, url: str, user: str = "", password: str = "", receive_buffer: int = 0) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.url = f"rtsp://{parts.hostname}:{parts.port}{parts.path}"
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(TIMEOUT_S)
        raw.connect((parts.hostname, parts.port))
        self.socket: socket.socket = raw
        if parts.scheme == "rtsps":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(raw)
        self._user, self._password = user, password
        self._authorization: tuple[str, str] | None = None
        self._stream = self.socket.makefile("rb")
        self._number = 0
        self.session = ""

    def __enter__(self) -> RtspClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self.socket.close()

    def ask(self, method: str, url: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
        """(status, headers, body) of the answer; asked again with the password when that is asked for."""
        answer = self._ask(method, url or self.url, headers)
        if answer[0] == 401 and self._user:
            found = re.search(r'realm="([^"]*)", nonce="([^"]*)"', answer[1]["www-authenticate"])
            assert found is not None, answer
            self._authorization = found[1], found[2]
            answer = self._ask(method, url or self.url, headers)
        return answer

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
        self._number += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._number}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if self.session:
            lines.append(f"Session: {self.session}")
        if self._authorization is not None:
            realm, nonce = self._authorization
            first = _md5(f"{self._user}:{realm}:{self._password}")
            response = _md5(f"{first}:{nonce}:{_md5(f'{method}:{url}')}")
            lines.append(
                f'Authorization: Digest username="{self._user}", realm="{realm}", nonce="{nonce}", '
                f'uri="{url}", response="{response}"'
            )
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], str]:
        """The next answer; what streams in before it is thrown away. Raises ConnectionError at the end."""
        while (first := self._read(1)) == b"$":
            self._interleaved()
        line = first + self._stream.readline()
        status = int(line.split()[1])
        found: dict[str, str] = {}
        while (line := self._stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            found[name.lower()] = value.strip()
        body = self._read(int(found.get("content-length", 0))).decode()
        self.session = found.get("session", self.session).split(";")[0]
        return status, found, body

    def play(self) -> str:
        """Describes, sets up over TCP and plays. Returns the SDP."""
        status, _, sdp = self.ask("DESCRIBE", Accept="application/sdp")
        assert status == 200, status
        status = self.setup()
        assert status == 200, status
        status, _, _ = self.ask("PLAY")
        assert status == 200, status
        return sdp

    def setup(self, transport: str = "RTP/AVP/TCP;unicast;interleaved=0-1") -> int:
        return self.ask("SETUP", f"{self.url}/stream=0", Transport=transport)[0]

    def packet(self) -> tuple[int, bytes]:
        """(channel, payload) of the next interleaved packet: 0 is RTP, 1 RTCP."""
        while self._read(1) != b"$":
            pass
        return self._interleaved()

    def _interleaved(self) -> tuple[int, bytes]:
        channel, length = struct.unpack(">BH", self._read(3))
        return channel, self._read(length)

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise ConnectionError("the server closed the connection")
        return data

    def is_closed_within(self, seconds: float) -> bool:
        """Whether the server ends the connection. Reads meanwhile."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
