"""One JSON-RPC connection to an OVSDB server over a unix socket (RFC 7047).

Messages are JSON objects one after another without a separator. The server's echo requests are answered
whenever the connection is read. One thread at a time uses a connection.
"""

import json
import os
import select
import socket
import time
from typing import Any

DATABASE = "Open_vSwitch"

_CHUNK = 1 << 18
_WHITESPACE = " \t\r\n"


class OvsdbError(Exception):
    """The switch's database refused or could not be asked; the message says which and why."""


class OvsdbLost(OvsdbError):
    """No connection, or it broke: whether a transaction under way was made is unknown. Look again."""


class OvsdbTimeout(OvsdbError):
    """The server, or the switch behind it, did not answer in time."""


class Connection:
    """A connected socket to `path`. Any error leaves it unusable: close it and make a new one."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        self._path = path
        self._timeout = timeout_seconds
        self._decoder = json.JSONDecoder()
        self._text = bytearray()
        self._id = 0
        self.notices: list[dict[str, Any]] = []  # notifications (updates of a monitor) that came meanwhile
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise OvsdbLost(f"no Open vSwitch database at {path}: {error.strerror or error}") from error

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def alive(self) -> bool:
        """Whether the server still holds its end, as far as can be seen without asking it."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def call(self, method: str, params: list[Any], timeout_seconds: float | None = None) -> Any:
        """The result of one method. Raises OvsdbError, OvsdbLost or OvsdbTimeout."""
        self._id += 1
        deadline = time.monotonic() + (self._timeout if timeout_seconds is None else timeout_seconds)
        self._send({"method": method, "params": params, "id": self._id}, deadline)
        while True:
            message = self._receive(deadline)
            if message.get("id") == self._id and "method" not in message:
                if message.get("error") is not None:
                    raise OvsdbError(f"{self._path} refused {method}: {json.dumps(message['error'])}")
                return message["result"]

    def collect(self) -> None:
        """Take in what has arrived (after select said so): answers echoes, appends to `notices`."""
        self._fill(time.monotonic() + self._timeout)
        while self._next() is not None:
            pass

    def _receive(self, deadline: float) -> dict[str, Any]:
        while (message := self._next()) is None:
            self._fill(deadline)
        return message

    def _next(self) -> dict[str, Any] | None:
        """The next whole message of the buffer that is a reply or a notice; echo requests are answered here."""
        while self._text.rstrip().endswith(b"}"):
            text = self._text.decode().lstrip(_WHITESPACE)
            try:
                message, end = self._decoder.raw_decode(text)
            except ValueError:
                return None
            self._text = bytearray(text[end:].encode())
            if message.get("method") == "echo":
                reply = {"id": message["id"], "result": message["params"], "error": None}
                self._send(reply, time.monotonic() + self._timeout)
                continue
            if "method" in message:
                self.notices.append(message)
            result: dict[str, Any] = message
            return result
        return None

    def _fill(self, deadline: float) -> None:
        self._wait(deadline)
        try:
            data = self._socket.recv(_CHUNK)
        except OSError as error:
            raise OvsdbLost(f"lost {self._path}: {error.strerror}") from error
        if not data:
            raise OvsdbLost(f"{self._path} closed the connection")
        self._text += data

    def _wait(self, deadline: float) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise OvsdbTimeout(f"{self._path} does not answer")

    def _send(self, message: dict[str, Any], deadline: float) -> None:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self._socket.sendall(json.dumps(message).encode())
        except TimeoutError as error:
            raise OvsdbTimeout(f"{self._path} takes nothing in") from error
        except OSError as error:
            raise OvsdbLost(f"lost {self._path}: {error.strerror}") from error
        finally:
            self._socket.settimeout(None)


def process_identity(pidfile: str) -> str:
    """`pid.starttime` of the living process that a pid file names, "" when there is none.

    Two equal answers mean that it is still the same process: a recycled pid has another start time.
    """
    try:
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if fields[0] in ("Z", "X") else f"{pid}.{fields[19]}"


def sibling(path: str, name: str) -> str:
    """The path of another file in the directory of `path`."""
    return os.path.join(os.path.dirname(path), name)
