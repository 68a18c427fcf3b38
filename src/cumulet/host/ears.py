"""Hears whether another station of a link has the hardware address of one of our devices, by the ARP that it sends.

One thread for all devices, asleep until some ARP arrives.  A device is listened to in its own namespace; the socket
stays there.  What is heard is a hint: whoever is told looks what is to be done.
"""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cumulet.host import netns

_ETH_ARP = 0x0806
_LONGEST = 64
_SENDER = slice(22, 28)  # of an Ethernet frame with ARP: the hardware address of who sends it


@dataclass(frozen=True)
class Place:
    """A device as it is now: one that is made anew under its name has another index."""

    namespace: str
    device: str
    index: int
    mac: str


class Ears:
    """``on_rival(key)`` is called in a thread of its own; it must not raise or block."""

    def __init__(self, on_rival: Callable[[str], None]) -> None:
        self._on_rival = on_rival
        self._open: dict[str, tuple[Place, socket.socket]] = {}
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="ears", daemon=True)
        self._thread.start()

    def listen(self, wanted: Mapping[str, Place]) -> None:
        """Listen to exactly these; a device that goes meanwhile is left out until the next time."""
        with self._lock:
            for key in [key for key, (place, _) in self._open.items() if wanted.get(key) != place]:
                self._open.pop(key)[1].close()
            for key in wanted.keys() - self._open.keys():
                with contextlib.suppress(OSError):
                    listener = _listen(wanted[key])
                    self._open[key] = (wanted[key], listener)
                    self._epoll.register(listener, select.EPOLLIN)

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self.listen({})
        self._epoll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            ready = {number for number, _ in self._epoll.poll()}
            if self._stop in ready:
                return
            with self._lock:
                heard = [
                    key
                    for key, (place, listener) in self._open.items()
                    if listener.fileno() in ready and _hears_rival(place, listener)
                ]
            for key in heard:
                self._on_rival(key)


def _listen(place: Place) -> socket.socket:
    with netns.enter(place.namespace):
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        listener.bind((place.device, _ETH_ARP))
    except OSError:
        listener.close()
        raise
    return listener


def _hears_rival(place: Place, listener: socket.socket) -> bool:
    """Reads all that has arrived; whether any of it was sent by the device's own address."""
    own, heard = bytes.fromhex(place.mac.replace(":", "")), False
    with contextlib.suppress(OSError):  # nothing more, or the device went down
        while True:
            frame, about = listener.recvfrom(_LONGEST)
            heard |= frame[_SENDER] == own and about[2] != socket.PACKET_OUTGOING
    return heard
