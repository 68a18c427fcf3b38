"""Device tags: what a user calls a NIC or the root disk of a server, so that its guest can tell which is which.

A tagged device has a PCI bus of the server's to itself, kept with its tag in ``servers.device_tags``.  Hosts put it
there and the guest is told of it, before it has ever been started, and wherever it goes.  Buses are given from the
last one down, for what has no tag is put on the first ones.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from msgspec import UnsetType

from cumulet.core.db import Transaction
from cumulet.core.errors import BadRequest
from cumulet.core.microversion import Version
from cumulet.neutron.model import Port
from cumulet.nova.model import PCI_BUSES
from cumulet.nova.server_wishes import NewServer
from cumulet.nova.tables import servers

Json = dict[str, Any]
Tags = Mapping[str, Mapping[str, Any]]
"""Port id, or ``ROOT`` for the root disk → ``tag`` and ``bus``."""
ROOT = "root"  # also the serial number of that disk
MOST = 8
_TAG = re.compile(r"[^,/]{1,60}")
_TAGS = sa.select(servers.c.device_tags).where(servers.c.id == sa.bindparam("server"))


@dataclass(frozen=True)
class Wished:
    """The tags in the body of a new server; empty where none was given.  ``nics``: in the order of ``networks``."""

    root: str = ""
    nics: Sequence[str] = ()


def wished(wish: NewServer, version: Version) -> Wished:
    """``tag`` came with 2.32, was lost with 2.33 (disks) and 2.37 (NICs), and is back from 2.42 on."""
    back = version >= (2, 42)
    nics: list[str] = []
    if isinstance(wish.networks, list):
        known = back or (2, 32) <= version < (2, 37)
        nics = [check_tag(network.tag, known=known) for network in wish.networks]
    root = ""
    if not isinstance(wish.block_device_mapping_v2, UnsetType):
        for device in wish.block_device_mapping_v2:
            root = check_tag(device.tag, known=back or version == (2, 32))
    found = Wished(root, nics)
    if sum(1 for tag in (root, *nics) if tag) > MOST:
        raise _too_many()
    return found


def check_tag(tag: str | UnsetType, *, known: bool) -> str:
    """Empty if there is none; ``known``: whether the version of the request has this field."""
    if isinstance(tag, UnsetType):
        return ""
    if not known:
        raise BadRequest("Additional properties are not allowed ('tag' was unexpected)")
    if not _TAG.fullmatch(tag) or not tag.isprintable():
        raise BadRequest(
            f"Invalid input for field/attribute tag. Value: {tag[:300]!r}. "
            "A tag has 1 to 60 characters, none of them a comma or a slash"
        )
    return tag


def write(tx: Transaction, server_id: str, what: Wished, port_ids: Sequence[str]) -> None:
    """Of a new server.  Nobody names ports without ``networks``, so these are then not told apart."""
    names = {ROOT: what.root, **dict(zip(port_ids, what.nics, strict=False))}
    found: Tags = {}
    for device, tag in names.items():
        if tag:
            found = add(found, device, tag)
    if found:
        tx.write(sa.update(servers).where(servers.c.id == server_id).values(device_tags=found))


def find(tx: Transaction, server_id: str) -> Tags:
    row = tx.find(_TAGS, {"server": server_id})
    return (row and row.device_tags) or {}


def add(tags: Tags, device: str, tag: str) -> Tags:
    taken = {entry["bus"] for entry in tags.values()}
    free = [bus for bus in range(PCI_BUSES, PCI_BUSES - MOST, -1) if bus not in taken]
    if not free:
        raise _too_many()
    return {**tags, device: {"tag": tag, "bus": free[0]}}


def only(tags: Tags, port_ids: Collection[str]) -> Tags:
    """Without those of ports that the server has no more."""
    return {device: entry for device, entry in tags.items() if device == ROOT or device in port_ids}


def bus_of(tags: Tags | None, device: str) -> int:
    """0: it has no tag, and may be anywhere."""
    return tags[device]["bus"] if tags and device in tags else 0


def documents(tags: Tags, ports: Sequence[Port]) -> list[Json]:
    """What the guest is told: ``devices`` of meta_data.json."""
    found = [{"type": "nic", "mac": port.mac, **_place(tags[port.id])} for port in ports if port.id in tags]
    if ROOT in tags:
        found.append({"type": "disk", "serial": ROOT, "path": "/dev/vda", **_place(tags[ROOT])})
    return found


def _place(entry: Mapping[str, Any]) -> Json:
    return {"bus": "pci", "address": f"0000:{entry['bus']:02x}:00.0", "tags": [entry["tag"]]}


def _too_many() -> BadRequest:
    return BadRequest(f"No more than {MOST} devices of a server can have tags")
