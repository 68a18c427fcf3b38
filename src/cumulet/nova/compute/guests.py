"""This host's guests all together, for ``cumulet down`` and ``cumulet doctor``; not part of nova-compute.

Their definitions and disks stay: the next nova-compute finds them off, on a host that has another boot id, and
starts those that are wanted on.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from cumulet.core.config import Config
from cumulet.host import libvirtd, openvswitch
from cumulet.host.ovsdb import Ovsdb
from cumulet.nova.compute.connection import Connection
from cumulet.nova.compute.domains import list_domains, unless_gone
from cumulet.nova.compute.taps import Taps

PRESS_SECONDS = 5.0
"""A guest that is still booting does not hear the power button: it is pressed again."""


def list_servers(config: Config) -> set[str]:
    """The ids of the servers that have a domain here."""
    with _connection(config) as connection:
        return set(connection.call(list_domains))


def stop_all(config: Config, seconds: float) -> None:
    """Shut every running guest down, all at once; switch off those that are still on after ``seconds``."""
    with _connection(config) as connection:
        deadline, pressed = time.monotonic() + seconds, float("-inf")
        while time.monotonic() < deadline:
            running = [found for found in connection.call(list_domains).values() if found.active]
            if not running:
                return
            if time.monotonic() - pressed >= PRESS_SECONDS:
                pressed = time.monotonic()
                for found in running:
                    connection.call(
                        lambda _, domain=found.domain: unless_gone(  # type: ignore[misc]
                            lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
                        )
                    )
            time.sleep(0.2)
        for found in connection.call(list_domains).values():
            if found.active:
                connection.call(lambda _, domain=found.domain: unless_gone(domain.destroy))  # type: ignore[misc]


def remove_taps(config: Config) -> None:
    """Take every server's tap off the switch and away."""
    taps = Taps(Ovsdb(openvswitch.database_socket(str(config.run / "openvswitch"))), libvirtd.QEMU_USER)
    taps.unplug(taps.look().devices)
    taps.sweep(())


@contextmanager
def _connection(config: Config) -> Iterator[Connection]:
    connection = Connection(libvirtd.uri(config.run))
    try:
        yield connection
    finally:
        connection.close()
