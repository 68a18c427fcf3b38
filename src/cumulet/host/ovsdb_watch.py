"""A thread that says when something at the switch may have changed.

It watches the bridge, port and interface rows by an OVSDB monitor, and the life of ovs-vswitchd by its pid file.
It is a hint only: one call may stand for many changes, and some calls for none. Whoever is called looks again.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Self

from cumulet.host.jsonrpc import DATABASE, Connection, OvsdbError, process_identity, sibling
from cumulet.host.ovsdb import VSWITCHD_PIDFILE, Ovsdb

_RECONNECT_SECONDS = 0.5
_ABSENT_SECONDS = 0.1
_PRESENT_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_TABLES = {
    "Bridge": {"columns": ["name", "ports"]},
    "Port": {"columns": ["name", "tag"]},
    "Interface": {"columns": ["name", "ofport", "external_ids", "error", "mac_in_use"]},
}


class Watch:
    """Calls `on_change()` in a thread of its own; a context manager.

    It calls when a bridge, port or interface appears, changes or goes, when the server comes back, when vswitchd
    dies, and when a new vswitchd is ready (its flow tables are then empty). `on_change` must not raise or block.
    """

    def __init__(self, path: str, on_change: Callable[[], None]) -> None:
        self._path = path
        self._on_change = on_change
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._stopped = False
        self._vswitchd = self._identity()
        self._thread = threading.Thread(target=self._run, name="ovsdb-watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; returns when no further call will be made."""
        if not self._stopped:
            self._stopped = True
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            os.close(self._stop)

    def _identity(self) -> str:
        return process_identity(sibling(self._path, VSWITCHD_PIDFILE))

    def _run(self) -> None:
        while not self._stopped:
            try:
                connection = Connection(self._path, _ANSWER_SECONDS)
            except OvsdbError:
                select.select([self._stop], [], [], _RECONNECT_SECONDS)
                continue
            with contextlib.suppress(OvsdbError), contextlib.closing(connection):
                connection.call("monitor", [DATABASE, None, _TABLES])
                self._on_change()  # whatever happened while nobody watched
                self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        while not self._stopped:
            seconds = _PRESENT_SECONDS if self._vswitchd else _ABSENT_SECONDS
            ready, _, _ = select.select([connection.fileno(), self._stop], [], [], seconds)
            if connection.fileno() in ready:
                connection.collect()
            if connection.notices or self._restarted():
                connection.notices.clear()
                self._on_change()

    def _restarted(self) -> bool:
        identity = self._identity()
        if identity == self._vswitchd:
            return False
        if identity:
            with contextlib.suppress(OvsdbError), Ovsdb(self._path, _ANSWER_SECONDS) as ovsdb:
                ovsdb.settle()
        self._vswitchd = identity
        return True
