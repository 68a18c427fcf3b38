"""What the nodes of a lab hold of things that nobody has: domains, disks, taps, ports of the switch, flows,
namespaces, claims.

Looked at from outside, past every service of the cloud: what is to be there is what the public APIs show.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cumulet.cli import lab
from cumulet.cli.lab import Lab
from cumulet.core import topology as topologies
from cumulet.host import machine
from cumulet.neutron.model import device_name
from cumulet.sim.promises import Cloud, Promises, get, list_servers

SWITCH = "/run/cumulet/openvswitch"
SPACES = {"qdhcp-": "networks", "qrouter-": "routers"}
MAC = re.compile(r"dl_(?:src|dst)=(fa:16:3e(?::[0-9a-f]{2}){3})")
GUEST = re.compile(r"guest=instance-([0-9a-f-]{36})")


def leaks(where: Lab, cloud: Cloud, promises: Promises) -> Iterator[str]:
    """One line for each thing."""
    homes: dict[str, str] = {}
    clinging = set()  # nodes with guests that cannot let go of a device yet that was taken from them
    for one in list_servers(cloud):
        if one["status"] == "PAUSED":
            clinging.add(one["OS-EXT-SRV-ATTR:host"])
        moving = one["status"] == "VERIFY_RESIZE"
        homes[one["id"]] = "" if moving else one["OS-EXT-SRV-ATTR:host"] or ""  # '': it may be on two hosts
    ports = get(cloud, "network", "/v2.0/ports")["ports"]
    kept = {kind: {one["id"] for one in get(cloud, "network", f"/v2.0/{kind}")[kind]} for kind in SPACES.values()}
    for node in where.topology.nodes:
        if topologies.runs(node, "nova-compute"):
            yield from _of_servers(where, node.name, homes)
            if node.name not in clinging:
                yield from _of_taps(where, node.name, homes, ports)
        if topologies.runs(node, topologies.SWITCHING):
            if node.name not in clinging:
                yield from _of_ports(where, node.name, ports)
            yield from _of_networks(where, node.name, kept)
    yield from _orphans(where)


def _of_servers(where: Lab, node: str, homes: dict[str, str]) -> Iterator[str]:
    for server in _names(where, node, "var/lib/cumulet/servers"):
        if _is_foreign(server, node, homes):
            yield f"leaked: files of server {server} on {node}"
    for server in GUEST.findall(lab.try_on(where.machine(node), ["pgrep", "-fa", "qemu-system"])):
        if _is_foreign(server, node, homes):
            yield f"leaked: guest {server} on {node}"


def _is_foreign(server: str, node: str, homes: dict[str, str]) -> bool:
    return homes.get(server, "nowhere") not in ("", node)


def _of_taps(where: Lab, node: str, homes: dict[str, str], ports: list[Any]) -> Iterator[str]:
    wanted = {device_name(port["id"]) for port in ports if not _is_foreign(port["device_id"], node, homes)}
    devices = {line.split(":")[0].strip() for line in _file(where, node, "net/dev").splitlines()}
    for tap in sorted(device for device in devices if device.startswith("tap")):
        if tap not in wanted:
            yield f"leaked: device {tap} on {node}"


def _of_ports(where: Lab, node: str, ports: list[Any]) -> Iterator[str]:
    """What the switch has of ports that are gone."""
    ids, macs = {port["id"] for port in ports}, {port["mac_address"] for port in ports}
    found = where.machine(node)
    query = ["--bare", "--columns=external_ids", "find", "interface"]
    said = lab.try_on(found, ["ovs-vsctl", "--timeout=5", f"--db=unix:{SWITCH}/db.sock", *query])
    for port in sorted(set(re.findall(r"iface-id=([0-9a-f-]{36})", said)) - ids):
        yield f"leaked: port {port} on the switch of {node}"
    for bridge in ("br-int", "br-tun"):
        flows = lab.try_on(found, ["ovs-ofctl", "-O", "OpenFlow14", "dump-flows", f"unix:{SWITCH}/{bridge}.mgmt"])
        for mac in sorted(set(MAC.findall(flows)) - macs):
            yield f"leaked: flows of {mac} on {bridge} of {node}"


def _of_networks(where: Lab, node: str, kept: dict[str, set[str]]) -> Iterator[str]:
    for space in _names(where, node, "run/netns"):
        for prefix, kind in SPACES.items():
            if space.startswith(prefix) and space.removeprefix(prefix) not in kept[kind]:
                yield f"leaked: namespace {space} on {node}"


def _orphans(where: Lab) -> Iterator[str]:
    """Rows of the database that belong to nothing."""
    said = lab.try_on(where.machine(where.controller()), lab.cumulet("doctor", "--json"))
    for one in msgspec.json.decode(said or "[]"):
        if one["about"] == "orphans" and one["level"] == "wrong":
            yield f"leaked: {one['found']}"


def _root(where: Lab, node: str) -> Path:
    return Path(f"/proc/{machine.find(where.machine(node))}")


def _names(where: Lab, node: str, place: str) -> list[str]:
    try:
        return sorted(entry.name for entry in (_root(where, node) / "root" / place).iterdir())
    except FileNotFoundError:
        return []


def _file(where: Lab, node: str, name: str) -> str:
    return (_root(where, node) / name).read_text()
