"""One connection to libvirtd that mends itself.

A thread of its own opens it, and again when it broke (libvirtd restarted, or hung longer than its keepalive), so a
libvirtd that hangs while it is connected to holds up nobody else.  Work is done by ``call``: without a connection,
and when it breaks in the middle, that is ``Retry``.  Whether the work was done is then unknown; the caller's next
pass looks.

Events are hints: a server's id for anything that happened to its domain, ``*`` whenever the connection came or
went.  libvirt tells of nothing that happened while it was away, so all is looked at again after each reconnect.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from cumulet.core.bus import EVERYTHING
from cumulet.core.errors import Retry
from cumulet.nova.compute.domain_xml import NAME_PREFIX

LOG = logging.getLogger(__name__)
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 5, 3
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.1, 2.0
PATIENCE_SECONDS = 2.0  # how long a call waits for a connection that is being made

T = TypeVar("T")

_BUGS = (
    libvirt.VIR_ERR_XML_ERROR,
    libvirt.VIR_ERR_XML_DETAIL,
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
)
"""Errors that say that what we asked for makes no sense: shown with a traceback."""

_event_loop_lock = threading.Lock()
_event_loop_runs = False


class Connection:
    """Opened at the first ``call`` or ``listen``, never in the constructor: a service forks in between."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._wake: Callable[[str], None] = lambda _: None
        self._changed = threading.Condition()
        self._current: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._trouble = "not connected yet"

    def listen(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._ensure_thread()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join(PATIENCE_SECONDS)

    def call(self, work: Callable[[Any], T]) -> T:
        """``work`` with the connection; every error of libvirt becomes ``Retry``, except our own bugs."""
        self._ensure_thread()
        with self._changed:
            self._changed.wait_for(lambda: self._current or self._closed, PATIENCE_SECONDS)
            connection = self._current
        if connection is None:
            raise Retry(f"libvirtd does not answer: {self._trouble}")
        try:
            return work(connection)
        except libvirt.libvirtError as error:
            if error.get_error_domain() == libvirt.VIR_FROM_RPC or not _alive(connection):
                self._lose(connection, str(error))
                raise Retry(f"libvirtd does not answer: {error}") from error
            if error.get_error_code() in _BUGS:
                raise
            raise Retry(f"libvirt: {error}") from error

    def _ensure_thread(self) -> None:
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._keep, name="libvirt-connect", daemon=True)
                self._thread.start()

    def _keep(self) -> None:
        """Have a connection until ``close``."""
        _run_event_loop()
        wait = FIRST_WAIT_SECONDS
        while not self._closed:
            try:
                connection = self._open()
            except libvirt.libvirtError as error:
                self._trouble = str(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)
                continue
            wait = FIRST_WAIT_SECONDS
            with self._changed:
                self._current = connection
                self._changed.notify_all()
            LOG.info("connected to libvirtd")
            self._wake(EVERYTHING)
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._current is None)
                self._current = None
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
            if not self._closed:
                LOG.warning("libvirtd went away: %s", self._trouble)
                self._wake(EVERYTHING)

    def _open(self) -> Any:
        connection = libvirt.open(self.uri)
        try:
            connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
            connection.registerCloseCallback(self._on_close, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_event, None)
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_device, None
            )
            # the first question that needs QEMU's capabilities can take seconds: here it keeps nobody waiting
            connection.getVersion()
        except libvirt.libvirtError:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
            raise
        return connection

    def _lose(self, connection: Any, trouble: str) -> None:
        with self._changed:
            if self._current is connection:
                self._current, self._trouble = None, trouble
                self._changed.notify_all()

    # Called by libvirt in its event loop's thread: only hints, no calls back.

    def _on_close(self, connection: Any, reason: int, _: Any) -> None:
        with self._changed:
            if self._current is not None:
                self._current, self._trouble = None, f"the connection was closed (reason {reason})"
                self._changed.notify_all()

    def _on_lifecycle(self, connection: Any, domain: Any, event: int, detail: int, opaque: Any) -> None:
        self._on_event(connection, domain, opaque)

    def _on_device(self, connection: Any, domain: Any, alias: str, opaque: Any) -> None:
        self._on_event(connection, domain, opaque)

    def _on_event(self, _: Any, domain: Any, __: Any) -> None:
        if domain.name().startswith(NAME_PREFIX):
            self._wake(domain.UUIDString())


def _alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _run_event_loop() -> None:
    """libvirt's event loop, once per process and for its whole life; it must be there before any connection."""
    global _event_loop_runs
    with _event_loop_lock:
        if _event_loop_runs:
            return
        libvirt.registerErrorHandler(lambda *_: None, None)  # it would print every error
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_turn, name="libvirt-events", daemon=True).start()
        _event_loop_runs = True


def _turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
