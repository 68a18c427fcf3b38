"""A screen of a simulated server: enough of RFB 3.8 for a client to come in, and one grey picture.

A thread for each that looks, which ends with its connection.
"""

import socket
import struct
import threading
from typing import BinaryIO

WIDTH, HEIGHT = 8, 4
VERSION, NO_SECURITY = b"RFB 003.008\n", 1
_FORMAT = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_UPDATE_REQUEST = 3
_BODIES = {0: 19, 2: 3, _UPDATE_REQUEST: 9, 4: 7, 5: 5, 6: 7}
"""By message type: how much follows, but for what a list or a text adds."""


def open_screen(name: str) -> tuple[socket.socket, socket.socket]:
    """The client's end, and the screen's: shutting that down ends the connection."""
    client, screen = socket.socketpair()
    threading.Thread(target=_serve, args=(screen, name), name="sim-screen", daemon=True).start()
    return client, screen


def _serve(screen: socket.socket, name: str) -> None:
    try:
        with screen, screen.makefile("rb") as heard:
            _greet(screen, heard, name)
            while kind := heard.read(1):
                _answer(screen, heard, kind[0])
    except (OSError, EOFError):
        return


def _greet(screen: socket.socket, heard: BinaryIO, name: str) -> None:
    screen.sendall(VERSION)
    _read(heard, len(VERSION))
    screen.sendall(bytes([1, NO_SECURITY]))
    _read(heard, 1)
    screen.sendall(struct.pack(">I", 0))
    _read(heard, 1)
    title = name.encode()
    screen.sendall(struct.pack(">HH", WIDTH, HEIGHT) + _FORMAT + struct.pack(">I", len(title)) + title)


def _answer(screen: socket.socket, heard: BinaryIO, kind: int) -> None:
    body = _read(heard, _BODIES[kind]) if kind in _BODIES else b""
    if kind == 2:
        _read(heard, 4 * struct.unpack(">xH", body)[0])
    elif kind == 6:
        _read(heard, struct.unpack(">3xI", body)[0])
    elif kind == _UPDATE_REQUEST:
        picture = b"\x80" * (4 * WIDTH * HEIGHT)
        screen.sendall(struct.pack(">BxHHHHHi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + picture)


def _read(heard: BinaryIO, length: int) -> bytes:
    data = heard.read(length)
    if len(data) < length:
        raise EOFError
    return data
