"""What a guest that comes in as it runs needs of its new host: empty disks, and a place for QEMU's sockets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute import passages
from cumulet.nova.compute.connection import Connection
from cumulet.nova.compute.domains import find_domain, unless_gone
from cumulet.nova.compute.passages import LIBVIRTD, Berth
from cumulet.nova.compute.server_files import ServerFiles
from cumulet.nova.compute.shared_disks import SharedDisks


@dataclass
class Berths:
    """``ids``: user and group of QEMU."""

    connection: Connection
    files: ServerFiles
    shared: SharedDisks
    run: Path
    ids: Callable[[], tuple[int, int]]
    disk_cache: Callable[[], str]

    def prepare(self, server_id: str, sizes: Mapping[str, int]) -> Berth:
        """For one attempt: nothing that an earlier one has sent is left.  Terminal if all of the guest is here."""
        found = self.connection.call(lambda connection: find_domain(connection, server_id))
        if found and found.state != "incoming":
            raise Terminal("its guest is there")
        if found:
            self.connection.call(lambda _: unless_gone(found.domain.destroy))
            raise Retry("what came in of it before has yet to go")
        present = self.files.find(server_id)
        if present is None or not present.disk or "disk" not in sizes:
            raise Retry("nothing is prepared for it")
        self.files.empty_disks(server_id, sizes)
        passages.make_place(self.run, server_id, *self.ids(), 0o700)
        return Berth(self.files.paths(server_id), self.disk_cache(), self.shared.prove(server_id))

    def find_way(self, server_id: str, way: str) -> Path:
        """The socket behind a way."""
        return (
            self.run / "libvirt" / "libvirt-sock" if way == LIBVIRTD else passages.place(self.run, server_id) / way
        )
