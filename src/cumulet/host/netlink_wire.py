"""The wire of netlink: requests, answers, attributes. What the messages mean is `netlink.py`'s business."""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Self

REQUEST, ACK, DUMP, REPLACE, EXCL, CREATE = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400
_DUMP_INTERRUPTED, _ACK_TLVS = 0x10, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_BUFFER = 1 << 17
_TRIES = 5

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class NetlinkError(OSError):
    """The kernel refused a request; errno is the kernel's."""


def attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def parse_attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def parse_text(data: bytes) -> str:
    return data.rstrip(b"\0").decode()


class NetlinkSocket:
    """A request socket, to rtnetlink or another part, in the namespace in which it was made; a context manager."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All objects of a kind; asked again when the kernel says that they changed meanwhile."""
        for _ in range(_TRIES):
            with contextlib.suppress(InterruptedError):
                return self.ask(kind, DUMP, body, "list")
        raise NetlinkError(errno.EINTR, "the kernel's tables change faster than they can be listed")

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """Send one request, return the bodies of its answers. Raises NetlinkError with the kernel's words."""
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, self._sequence, 0) + body)
        answers: list[bytes] = []
        interrupted = False
        while True:
            for answer_kind, answer_flags, data in self._receive():
                interrupted = interrupted or bool(answer_flags & _DUMP_INTERRUPTED)
                if answer_kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _check(answer_flags, data, what)
                    if interrupted:
                        raise InterruptedError
                    return answers
                answers.append(data)
            if answers and not flags & (DUMP | ACK):
                return answers

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data, at = self._socket.recv(_BUFFER), 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if sequence == self._sequence:  # an answer to an abandoned request is passed over
                yield kind, flags, data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3


def _check(flags: int, data: bytes, what: str) -> None:
    number = -struct.unpack_from("=i", data)[0] if len(data) >= 4 else 0
    if number:
        words = os.strerror(number)
        if flags & _ACK_TLVS:
            words = parse_text(parse_attributes(data[4 + _HEADER.size :]).get(1, b"")) or words
        raise NetlinkError(number, f"{what}: {words}")
