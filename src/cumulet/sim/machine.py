"""A server on a simulated host: what is written down there, and what runs."""

import socket
from contextlib import suppress

from cumulet.nova.model import Domain, Progress

SHOWING = ("on", "paused")
EMPTY = "empty"
"""A disk that was made from no image."""


class Machine:
    """One server on this host: what is written down and what runs."""

    __slots__ = (
        "_state", "before", "boots", "console", "copies", "defined", "disk", "disk_for", "files", "last_verb",
        "memory_mb", "nics", "progress", "screens", "starts", "stop_at", "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self.files: dict[str, bytes] | None = None
        self.disk: str | None = None  # the image it was made from
        self.disk_for = 0  # the rebuild that it was made for
        self.written = False  # a guest has run on it
        self.boots = 0  # how often; this is what guests write on their disks
        self.before: tuple[str | None, int] | None = None  # the disk as it was before a resize
        self.memory_mb = 0
        self.copies: set[int] = set()  # verbs
        self.screens: list[socket.socket] = []  # ours, of those that look
        self.defined = False
        self.nics: frozenset[str] = frozenset()
        self.state = "off"
        self.last_verb = 0
        self.starts = 0
        self.stop_at: float | None = None
        self.console = b""
        self.progress: Progress | None = None  # of its way to another host

    def domain(self, taps: frozenset[str]) -> Domain:
        """As nova-compute sees it."""
        return Domain(
            taps=taps,
            files=self.files is not None,
            disk=self.disk is not None,
            image=self.disk if self.disk and self.disk != EMPTY else "",
            copies=frozenset(self.copies),
            defined=self.defined,
            nics=self.nics,
            state=self.state,
            last_verb=self.last_verb,
            progress=self.progress,
        )

    def take_over(self, origin: "Machine") -> None:
        """All of a guest is here, from another host; it stands still."""
        assert self.state == "incoming", "it came from nowhere"
        assert self.disk == origin.disk, "sent onto the disk of another image"
        self.boots, self.written, self.console = origin.boots, origin.written, origin.console
        self.memory_mb, self.last_verb, self.starts = origin.memory_mb, origin.last_verb, origin.starts
        self.nics, self.state = origin.nics, "paused"

    def break_off(self) -> None:
        """A guest that is coming in is thrown away, one that goes out stays."""
        self.progress = None
        if self.state == "incoming":
            self.defined, self.state = False, "off"

    @property
    def state(self) -> str:
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        """Who is off shows nothing."""
        self._state = state
        while state not in SHOWING and self.screens:
            with suppress(OSError):  # closed by its other side
                self.screens.pop().shutdown(socket.SHUT_RDWR)
