"""What both ends of a live migration know of each other: the ways by which a guest goes, and what is where.

libvirt sends a guest over three kinds of connections: to the other libvirtd, to QEMU for the memory, to QEMU for
each disk.  Here none of them listens on a network.  All are unix sockets in a directory of this one server, which
libvirtd sees at the same place on every host; the source's nova-compute (``tunnel``) carries what is said on them
to the destination's (``arrivals``).
"""

import http.client
import shutil
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct

from cumulet.core.client import connect_host
from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute.domain_xml import Files

LIBVIRTD, MEMORY, DISKS = WAYS = ("libvirtd", "memory", "disks")
TICKET = "X-Guest-Ticket"
SECONDS = 60.0
"""To make empty disks, or to end what an earlier attempt has left."""
MOST_BYTES = 1 << 50
Size = Annotated[int, Meta(ge=512, le=MOST_BYTES)]


class Berth(Struct, frozen=True):
    """What a server's guest finds on the host it goes to."""

    files: Files
    disk_cache: str
    proof: str = ""  # to be read in that host's files by who shares them


class Destination(Struct, frozen=True):
    """The nova-compute that a guest is sent to: what the verb's arguments say of it."""

    host: str
    address: str
    port: int
    ticket: str

    def reach(self, trust: ssl.SSLContext | None, seconds: float) -> http.client.HTTPConnection:
        return connect_host(self.host, self.address, self.port, trust, seconds)


def place(run: Path, server_id: str) -> Path:
    return run / "libvirt" / "passages" / server_id


def seen_by_libvirtd(server_id: str, way: str) -> str:
    """libvirtd has its own directory at a fixed place (``host.libvirtd``)."""
    return f"/run/libvirt/passages/{server_id}/{way}"


def make_place(run: Path, server_id: str, owner: int, group: int, mode: int) -> Path:
    """The directory for a server's sockets, with none in it."""
    directory = place(run, server_id)
    remove_place(run, server_id)
    directory.mkdir(parents=True)
    directory.parent.chmod(0o711)
    shutil.chown(directory, owner, group)
    directory.chmod(mode)
    return directory


def remove_place(run: Path, server_id: str) -> None:
    shutil.rmtree(place(run, server_id), ignore_errors=True)


def knock(to: Destination, trust: ssl.SSLContext | None, server_id: str, sizes: Mapping[str, int]) -> Berth:
    """Ask the destination to let a server with disks of these sizes in.  Terminal: it never will."""
    if not to.address:
        raise Retry(f"{to.host} has not said where it can be asked")
    connection = to.reach(trust, SECONDS)
    try:
        connection.request("POST", f"/servers/{server_id}/arrival?{urlencode(sizes)}", headers={TICKET: to.ticket})
        response = connection.getresponse()
        said = response.read(1 << 16)
    except (OSError, http.client.HTTPException) as error:
        raise Retry(f"{to.host} does not answer: {error}") from error
    finally:
        connection.close()
    if response.status == 200:
        return _read(to, said)
    reason = f"{to.host} does not let the server in: {said[:300].decode(errors='replace')}"
    raise Terminal(reason) if response.status == 409 else Retry(reason)


def read_sizes(query: Mapping[str, Any]) -> dict[str, int]:
    """By the disk's name; msgspec.ValidationError for what is none."""
    return msgspec.convert(dict(query), type=dict[str, Size], strict=False)


def _read(to: Destination, said: bytes) -> Berth:
    try:
        return msgspec.json.decode(said, type=Berth)
    except msgspec.DecodeError as error:
        raise Retry(f"{to.host} says what is no berth: {error}") from error
