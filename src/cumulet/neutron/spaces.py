"""What the DHCP and the L3 agent share on a host: a namespace per thing, its ports on the switch, its dnsmasq.

A thing is a network or a router.  Its namespace's name is a prefix and its id; a directory of its own holds what
its dnsmasq needs.  Everything can be taken away without the switch, too, for then its ports are gone already.
"""

import logging
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from cumulet.core.errors import Retry
from cumulet.host import dnsmasq, netns
from cumulet.host.interface import own_namespaces, remove_interface, remove_namespace
from cumulet.host.jsonrpc import OvsdbError
from cumulet.host.netlink import Netlink
from cumulet.host.ovsdb import Ovsdb
from cumulet.host.ovsdb_rows import Switch
from cumulet.host.process import ProcessError

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spaces:
    """The namespaces of one kind.  ``outer`` names a veth's outer end by its inner one; '' if it is not ours."""

    run_dir: Path
    prefix: str
    place: str  # below the run directory: the things' directories
    outer: Callable[[str], str]
    ovsdb: Ovsdb

    def look(self) -> tuple[Switch, frozenset[str]]:
        """The switch as it is, and the things of which this host has something."""
        try:
            switch = self.ovsdb.look()
        except (OSError, OvsdbError) as error:
            raise Retry(f"Open vSwitch does not answer: {error}") from error
        return switch, frozenset(self.name_by_id())

    def name_by_id(self) -> dict[str, str]:
        names = own_namespaces(self.run_dir, self.prefix)
        return {name.removeprefix(self.prefix): name for name in names}

    def directory(self, thing_id: str) -> Path:
        return self.run_dir / self.place / thing_id

    def remove_devices(self, thing_id: str, besides: Collection[str] = ()) -> None:
        """The thing's ports leave the switch, but those whose inner ends are named."""
        for device in self._outer_devices(thing_id, besides):
            remove_interface(self.ovsdb, device)

    def remove(self, thing_id: str) -> None:
        """Nothing of this thing is left here."""
        try:
            dnsmasq.end(self.directory(thing_id))
            self.remove_devices(thing_id)
            remove_namespace(self.run_dir, self.prefix + thing_id)
        except (OSError, OvsdbError, ProcessError) as error:
            raise Retry(str(error)) from error
        shutil.rmtree(self.directory(thing_id), ignore_errors=True)

    def remove_all(self) -> None:
        for thing_id, name in self.name_by_id().items():
            try:
                self.remove(thing_id)
            except Retry as reason:
                LOG.warning("%s: %s", name, reason)
                self._remove_without_switch(thing_id)

    def _remove_without_switch(self, thing_id: str) -> None:
        dnsmasq.end(self.directory(thing_id))
        with Netlink() as link:
            for device in self._outer_devices(thing_id):
                link.delete_link(device)
        remove_namespace(self.run_dir, self.prefix + thing_id)
        shutil.rmtree(self.directory(thing_id), ignore_errors=True)

    def _outer_devices(self, thing_id: str, besides: Collection[str] = ()) -> list[str]:
        """The outer ends of the namespace's veth pairs, by our naming."""
        namespace = self.prefix + thing_id
        if not netns.exists(namespace):
            return []
        with netns.enter(namespace), Netlink() as link:
            inner = [name for name in link.links() if name not in besides]
        return [outer for name in inner if (outer := self.outer(name))]
