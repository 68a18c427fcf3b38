"""Hints: "something about this key changed, look again".

A hint carries a topic and a key, never data, and may be lost, doubled or late: correctness rests on the
periodic passes alone.  ``SocketBus`` is the single node's: each process binds one datagram socket in the run
directory and links it under every topic it listens to; a sender writes to all sockets of a topic and forgets
those that nobody reads any more.  ``amqp_bus`` is for what runs on several nodes.
"""

import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

LOG = logging.getLogger(__name__)
Listener = Callable[[str], None]
TOPIC = re.compile(r"[a-z][a-z0-9_.:-]{0,120}", re.IGNORECASE)
LONGEST_HINT = 1024
EVERYTHING = "*"
"""A hint with this key, like one with a key that the intent does not have, asks for a full pass."""


class Bus(Protocol):
    def hint(self, topic: str, key: str) -> None: ...
    def listen(self, topic: str, listener: Listener) -> None: ...


def check_topic(topic: str) -> None:
    if not TOPIC.fullmatch(topic):
        raise ValueError(f"not a topic: {topic!r}")


class LocalBus:
    """Hints inside one process, delivered at once.  ``cut`` loses them all, which must harm nobody."""

    def __init__(self, cut: bool = False) -> None:
        self.cut = cut
        self._listeners: dict[str, list[Listener]] = defaultdict(list)

    def listen(self, topic: str, listener: Listener) -> None:
        self._listeners[topic].append(listener)

    def clear(self) -> None:
        self._listeners.clear()

    def hint(self, topic: str, key: str) -> None:
        if not self.cut:
            for listener in list(self._listeners[topic]):
                listener(key)


class SocketBus:
    """Hints between the processes of one node, through ``directory`` (made by the node's parent)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sender: socket.socket | None = None  # opened by whoever hints first, which may be a forked child
        self._receiver: socket.socket | None = None
        self._listeners: dict[str, list[Listener]] = defaultdict(list)
        self._lock = threading.Lock()
        self._name = ""

    def listen(self, topic: str, listener: Listener) -> None:
        check_topic(topic)
        with self._lock:
            if self._receiver is None:
                self._receiver = self._bind()
                threading.Thread(target=self._receive, name="bus", daemon=True).start()
            self._listeners[topic].append(listener)
            place = self._directory / topic
            place.mkdir(mode=0o770, exist_ok=True)
            self._share(place)
            with contextlib.suppress(FileExistsError):
                (place / self._name).symlink_to(self._directory / f".{self._name}")

    def hint(self, topic: str, key: str) -> None:
        check_topic(topic)
        place = self._directory / topic
        try:
            names = os.listdir(place)
        except FileNotFoundError:
            return
        message = f"{topic}\n{key}".encode()[:LONGEST_HINT]
        sender = self._sending()
        for name in names:
            self._send(sender, place / name, message)

    def _sending(self) -> socket.socket:
        if self._sender is None:
            with self._lock:
                self._sender = self._sender or socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
                )
        return self._sender

    def _send(self, sender: socket.socket, path: Path, message: bytes) -> None:
        try:
            sender.sendto(message, str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()
        except (BlockingIOError, PermissionError) as error:
            LOG.debug("hint lost: %s", error)

    def _bind(self) -> socket.socket:
        self._name = f"{os.getpid()}-{time.monotonic_ns():x}"
        path = self._directory / f".{self._name}"
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(str(path))
        path.chmod(0o660)
        self._share(path)
        return receiver

    def _share(self, path: Path) -> None:
        """Give what root makes to the directory's group, so that unprivileged services can hint agents."""
        if os.geteuid() == 0:
            os.chown(path, -1, self._directory.stat().st_gid)
            if path.is_dir():
                path.chmod(0o770)

    def _receive(self) -> None:
        assert self._receiver is not None
        while True:
            topic, _, key = self._receiver.recv(LONGEST_HINT).decode(errors="replace").partition("\n")
            for listener in list(self._listeners.get(topic, ())):
                listener(key)
