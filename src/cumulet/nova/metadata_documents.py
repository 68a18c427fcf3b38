"""What a guest may know of itself: the EC2 and the OpenStack tree, for the metadata service and the config drive.

``Guest`` is everything they are made from, read by ``find_guest`` in two queries.  All else here is pure: the same
guest gives the same documents, but for ``random_seed``.  Old versions of a tree have fewer files, so a version is a
date, and each file and field has the date it came with.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import msgspec
import sqlalchemy as sa

from cumulet.core.db import Transaction
from cumulet.core.errors import NotFound
from cumulet.neutron import public as neutron
from cumulet.neutron.model import Address, Port, device_name
from cumulet.nova import device_tags, status, zones
from cumulet.nova.tables import servers

Json = dict[str, Any]
EC2_VERSIONS = (
    "1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01",
    "2009-04-04",
)  # fmt: skip
OPENSTACK_VERSIONS = (
    "2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27",
    "2020-10-14", "2025-04-04",
)  # fmt: skip
LATEST = "latest"
_FILES = {
    "meta_data.json": "2012-08-10",
    "user_data": "2012-08-10",
    "password": "2013-04-04",
    "vendor_data.json": "2013-10-17",
    "network_data.json": "2015-10-15",
    "vendor_data2.json": "2016-10-06",
}
"""The files of the OpenStack tree and the version that each came with."""
SEED_BYTES = 512


@dataclass(frozen=True)
class Guest:
    id: str
    project_id: str
    name: str
    hostname: str
    flavor: str
    disks: Mapping[str, str]  # EC2's names → devices
    image_id: str
    reservation_id: str
    launch_index: int
    metadata: Mapping[str, str]
    key: Mapping[str, str] | None  # name, type, public_key
    user_data: bytes | None
    password: str
    ports: Sequence[Port]
    zone: str
    device_tags: device_tags.Tags

    @property
    def fixed(self) -> list[Address]:
        return [address for port in self.ports for address in port.addresses]

    @property
    def floating_ips(self) -> list[str]:
        return [floating for port in self.ports for _, floating in port.floating_ips]


def find_guest(tx: Transaction, server_id: str) -> Guest | None:
    """The guest of a server that is not gone."""
    columns = (
        "id", "project_id", "name", "hostname", "flavor", "image_id", "reservation_id", "launch_index", "metadata",
        "key", "user_data", "encrypted_password", "device_tags",
    )  # fmt: skip
    statement = sa.select(*(servers.c[name] for name in columns), status.zone.label("zone"))
    statement = statement.select_from(status.STATES)
    row = tx.find(statement.where(servers.c.id == server_id, servers.c.gone_at.is_(None)))
    if row is None:
        return None
    return Guest(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        hostname=row.hostname,
        flavor=row.flavor["name"],
        disks=_disks(row.flavor),
        image_id=row.image_id or "",
        reservation_id=row.reservation_id,
        launch_index=row.launch_index,
        metadata=row.metadata,
        key=row.key,
        user_data=base64.b64decode(row.user_data) if row.user_data is not None else None,
        password=row.encrypted_password or "",
        ports=neutron.list_server_ports(tx, [row.id]).get(row.id, []),
        zone=row.zone or zones.DEFAULT,
        device_tags=row.device_tags or {},
    )


def _disks(flavor: Mapping[str, Any]) -> dict[str, str]:
    """The root disk and those that the flavor gives beside it, in the order in which the guest has them."""
    names = [name for name, size in (("ephemeral0", flavor.get("ephemeral")), ("swap", flavor.get("swap"))) if size]
    beside = {name: f"/dev/vd{letter}" for name, letter in zip(names, "bc", strict=False)}
    return {"ami": "vda", "root": "/dev/vda", **beside}


# ── the OpenStack tree ───────────────────────────────────────────────────────────────────────────────────────


def openstack_file(guest: Guest, version: str, name: str) -> bytes | None:
    """A file of ``/openstack/VERSION/``; None if there is none of that name in that version."""
    if name not in openstack_names(guest, version):
        return None
    if name == "meta_data.json":
        return _encode(meta_data(guest, version))
    if name == "network_data.json":
        return _encode(network_data(guest.ports))
    if name == "user_data":
        return guest.user_data
    if name == "password":
        return guest.password.encode()
    return b'{"static":{}}' if name == "vendor_data2.json" else b"{}"


def openstack_names(guest: Guest, version: str) -> list[str]:
    """What is in ``/openstack/VERSION/``; nothing if there is no such version."""
    if version != LATEST and version not in OPENSTACK_VERSIONS:
        return []
    return [
        name
        for name, since in _FILES.items()
        if (version == LATEST or version >= since) and (name != "user_data" or guest.user_data is not None)
    ]


def meta_data(guest: Guest, version: str, seed: bytes | None = None) -> Json:
    document: Json = {"uuid": guest.id}
    if guest.metadata:
        document["meta"] = dict(guest.metadata)
    if guest.key:
        name, public = guest.key["name"], guest.key["public_key"]
        document["public_keys"] = {name: public}
        document["keys"] = [{"name": name, "type": guest.key["type"], "data": public}]
    document |= {
        "hostname": guest.hostname,
        "name": guest.name,
        "launch_index": guest.launch_index,
        "availability_zone": guest.zone,
    }
    added: Sequence[tuple[str, str, Any]] = (
        ("2013-04-04", "random_seed", base64.b64encode(seed or os.urandom(SEED_BYTES)).decode()),
        ("2015-10-15", "project_id", guest.project_id),
        ("2016-06-30", "devices", device_tags.documents(guest.device_tags, guest.ports)),
        ("2020-10-14", "dedicated_cpus", []),
    )
    return document | {name: value for since, name, value in added if version == LATEST or version >= since}


def network_data(ports: Sequence[Port]) -> Json:
    """``network_data.json``: links, the networks on them, and name servers."""
    links = [
        {
            "id": device_name(port.id),
            "vif_id": port.id,
            "type": "ovs",
            "mtu": port.mtu,
            "ethernet_mac_address": port.mac,
        }
        for port in ports
    ]
    networks = [
        {"id": f"network{number}", "link": device_name(port.id), "network_id": port.network_id, **_network(address)}
        for number, (port, address) in enumerate((port, address) for port in ports for address in port.addresses)
    ]
    servers_of_names = dict.fromkeys(dns for port in ports for address in port.addresses for dns in address.dns)
    return {
        "links": links,
        "networks": networks,
        "services": [{"type": "dns", "address": address} for address in servers_of_names],
    }


def _network(address: Address) -> Json:
    """By DHCP or router advertisement where there is one, else everything the guest has to set itself."""
    if address.ip_version == 4 and address.dhcp:
        return {"type": "ipv4_dhcp"}
    if address.ip_version == 6 and address.ipv6_mode:
        kind = "ipv6_slaac" if address.ipv6_mode == "slaac" else f"ipv6_{address.ipv6_mode}"
        return {"type": kind, "ip_address": address.ip}
    subnet = ip_network(address.cidr)
    routes = [_route(destination, hop) for destination, hop in address.routes]
    if address.gateway:
        routes.insert(0, _route("0.0.0.0/0" if address.ip_version == 4 else "::/0", address.gateway))
    return {
        "type": f"ipv{address.ip_version}",
        "ip_address": address.ip,
        "netmask": str(subnet.netmask),
        "routes": routes,
        "services": [{"type": "dns", "address": dns} for dns in address.dns],
    }


def _route(destination: str, gateway: str) -> Json:
    network = ip_network(destination)
    return {"network": str(network.network_address), "netmask": str(network.netmask), "gateway": gateway}


# ── the EC2 tree ─────────────────────────────────────────────────────────────────────────────────────────────


def ec2_tree(guest: Guest, version: str) -> Json | None:
    """``/VERSION/`` as nested dictionaries of text; None if there is no such version."""
    if version == LATEST:
        version = EC2_VERSIONS[-1]
    if version not in EC2_VERSIONS:
        return None
    v4 = [address.ip for address in guest.fixed if address.ip_version == 4]
    data: Json = {
        "ami-id": ec2_id("ami", guest.image_id),
        "ami-launch-index": str(guest.launch_index),
        "ami-manifest-path": "(unknown)",
        "hostname": guest.hostname,
        "instance-id": ec2_id("i", guest.id),
        "local-ipv4": v4[0] if v4 else "",
        "reservation-id": guest.reservation_id,
        "security-groups": "\n".join(dict.fromkeys(name for port in guest.ports for name in port.security_groups)),
    }
    if guest.key:
        data["public-keys"] = {"0": {"openssh-key": guest.key["public_key"]}}
    later: Sequence[tuple[str, Json]] = (
        (
            "2007-01-19",
            {
                "local-hostname": guest.hostname,
                "public-hostname": guest.hostname,
                "public-ipv4": guest.floating_ips[0] if guest.floating_ips else "",
            },
        ),
        ("2007-08-29", {"instance-type": guest.flavor}),
        ("2007-12-15", {"block-device-mapping": guest.disks}),
        ("2008-02-01", {"placement": {"availability-zone": guest.zone}}),
        ("2008-09-01", {"instance-action": "none"}),
    )
    for since, fields in later:
        if version >= since:
            data |= fields
    return {"meta-data": data} | ({} if guest.user_data is None else {"user-data": guest.user_data})


def ec2_id(prefix: str, identity: str) -> str:
    """EC2's short form of a UUID, e.g. ``i-1a2b3c4d``."""
    return f"{prefix}-{identity.replace('-', '')[:8] or '00000000'}"


# ── the config drive ─────────────────────────────────────────────────────────────────────────────────────────


def config_drive_files(tx: Transaction, server_id: str) -> dict[str, bytes]:
    """Every file of the server's config drive, by its path on it; NotFound if there is no such server."""
    guest = find_guest(tx, server_id)
    if guest is None:
        raise NotFound(f"Instance {server_id} could not be found.", kind="InstanceNotFound")
    return drive_files(guest)


def drive_files(guest: Guest) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for version in (*OPENSTACK_VERSIONS, LATEST):
        for name in openstack_names(guest, version):
            content = openstack_file(guest, version, name)
            if name != "password" and content is not None:
                files[f"openstack/{version}/{name}"] = content
    for version in (EC2_VERSIONS[-1], LATEST):
        tree = ec2_tree(guest, version)
        assert tree is not None
        files[f"ec2/{version}/meta-data.json"] = _encode(tree["meta-data"])
        if guest.user_data is not None:
            files[f"ec2/{version}/user-data"] = guest.user_data
    return files


def _encode(document: Json) -> bytes:
    return msgspec.json.encode(document)
