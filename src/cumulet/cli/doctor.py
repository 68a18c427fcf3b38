"""``cumulet doctor``: check the machine and the cloud; every finding comes with a remedy.

Read-only.  Exit code 1 if something is wrong; remarks (what is so, and what follows) do not count.
"""

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cumulet.cli import child, leftovers, parts, status
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.services import SERVICES

GIGABYTE = 1 << 30
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "libvirtd": "libvirt-daemon",
    "ovs-vswitchd": "openvswitch-switch",
    "dnsmasq": "dnsmasq-base",
    "ssh": "openssh-client",
}


class Finding(msgspec.Struct):
    """``level``: 'ok', 'remark' (nothing to do, but good to know) or 'wrong'."""

    level: str
    about: str
    found: str
    remedy: str = ""


def main(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        sys.exit("cumulet doctor needs root: it looks at bridges, namespaces and the database")
    config = configuration.load(options.config)
    findings = examine(config)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(findings), indent=1).decode())
    else:
        for finding in findings:
            print(f"{finding.level:<8}{finding.about:<22}{finding.found}")
            if finding.remedy:
                print(f"{'':<30}→ {finding.remedy}")
    return 1 if any(finding.level == "wrong" for finding in findings) else 0


def examine(config: Config) -> list[Finding]:
    running = status.running(config)
    found = [*_tools(), _virtualization(config), _datapath(config), _disk(config), _memory(config)]
    if not running:
        return [*found, *_ports(config), *_left_over(config)]
    return [*found, *_services(config), *_loops(config), *_orphans(config)]


def _tools() -> Iterator[Finding]:
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            yield Finding("wrong", "tools", f"{tool} is not installed", f"apt-get install {package}, or cumulet up")


def _virtualization(config: Config) -> Finding:
    from cumulet.host import kvm

    if config.compute.virt_type != "auto":
        return Finding("ok", "virtualization", f"{config.compute.virt_type}, as configured")
    if not Path("/dev/kvm").exists():
        remedy = "enable virtualization in the firmware, or nested virtualization in the host"
        return Finding("remark", "virtualization", "no /dev/kvm: servers are emulated (TCG)", remedy)
    if kvm.usable():
        return Finding("ok", "virtualization", "KVM is usable")
    return Finding(
        "remark",
        "virtualization",
        "/dev/kvm is there but much slower than emulation: servers are emulated (TCG)",
        'use a machine whose KVM runs on hardware; virt_type = "kvm" in [compute] overrides the probe',
    )


def _datapath(config: Config) -> Finding:
    if leftovers.datapath() == "kernel":
        return Finding("ok", "network datapath", "the kernel has Open vSwitch's datapath")
    return Finding(
        "remark",
        "network datapath",
        "the kernel has no Open vSwitch datapath: packets go through user space, some 300 Mbit/s",
        "modprobe openvswitch, if the kernel has modules",
    )


def _disk(config: Config) -> Finding:
    place = config.state if config.state.exists() else Path("/")
    free = shutil.disk_usage(place).free / GIGABYTE
    if free < 2:
        return Finding("wrong", "disk", f"{free:.1f} GB free in {place}", "free some; servers' disks grow there")
    return Finding("ok", "disk", f"{free:.0f} GB free in {place}")


def _memory(config: Config) -> Finding:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) // 1024
    if free < 400:
        return Finding("wrong", "memory", f"{free} MB available", "a small server needs 300 MB: stop something")
    return Finding("ok", "memory", f"{free} MB available")


def _ports(config: Config) -> Iterator[Finding]:
    """Ports that somebody else listens on; asked only while the cloud is down."""
    for service in SERVICES:
        if not service.port:
            continue
        host, port = child.api_address(service, config)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                remedy = f"ss -ltnp 'sport = {port}' tells who has it: stop that, or change [api] bind"
                yield Finding("wrong", "ports", f"{host}:{port} for {service.name}: {error.strerror}", remedy)


def _left_over(config: Config) -> Iterator[Finding]:
    for thing in leftovers.leftovers(config):
        yield Finding("wrong", "leftovers", thing, "cumulet down takes away what is the cloud's own")


def _services(config: Config) -> Iterator[Finding]:
    for line in status.healths(config):
        if not line.healthy:
            yield Finding("wrong", "services", f"{line.name}: {line.problem}", f"cumulet logs {line.name}")
        elif line.starts > 3:
            found = f"{line.name} was started {line.starts} times"
            yield Finding("remark", "services", found, f"cumulet logs {line.name} tells why it ended")


def _loops(config: Config) -> Iterator[Finding]:
    for service, loops in status.loops(config).items():
        for loop in loops:
            if loop["read_failure"]:
                found = f"{service}/{loop['name']} cannot read its intent: {loop['read_failure']}"
                yield Finding("wrong", "loops", found, "it goes on by itself when the controller answers again")
            for key, failure in loop["failing"].items():
                state = f"{failure['kind']} since {failure['since']}: {failure['reason']}"
                found = f"{service}/{loop['name']}: {key} {state}"
                level = "remark" if failure["kind"] == "waiting" and failure["tries"] < 20 else "wrong"
                yield Finding(level, "loops", found, f"cumulet why {key}")


def _orphans(config: Config) -> Iterator[Finding]:
    """What is on the host and not in the database, and the other way round."""
    import sqlalchemy as sa

    from cumulet.core.bus import LocalBus
    from cumulet.core.db import Database
    from cumulet.neutron import tables as neutron
    from cumulet.nova import tables as nova
    from cumulet.placement import tables as placement

    host = config.node.name
    with Database(config.database_url, LocalBus()).read() as tx:
        hosts, bindings = nova.server_hosts, neutron.port_bindings
        servers = {row.server_id for row in tx.all(sa.select(hosts.c.server_id).where(hosts.c.host == host))}
        alive = {row.id for row in tx.all(sa.select(nova.servers.c.id).where(nova.servers.c.gone_at.is_(None)))}
        ports = {row.port_id for row in tx.all(sa.select(bindings.c.port_id).where(bindings.c.host == host))}
        dhcp, routers = neutron.dhcp_bindings, neutron.router_bindings
        networks = {row.network_id for row in tx.all(sa.select(dhcp.c.network_id).where(dhcp.c.host == host))}
        routed = {row.router_id for row in tx.all(sa.select(routers.c.router_id).where(routers.c.host == host))}
        claims = {row.consumer_id for row in tx.all(sa.select(placement.allocations.c.consumer_id))}
        owned = sa.select(neutron.ports.c.id, neutron.ports.c.device_id).where(
            neutron.ports.c.device_owner.like("compute:%")
        )
        lost = [row.id for row in tx.all(owned) if row.device_id not in alive]
    yield from _domains(config, servers)
    yield from _switch_ports(config, ports)
    named = {f"qdhcp-{n}" for n in networks} | {f"qrouter-{r}" for r in routed}
    for name in sorted(set(leftovers.namespaces(config)) - named):
        yield Finding(
            "wrong", "orphans", f"namespace {name} has no intent", "left alone; ip netns delete it by hand"
        )
    for consumer in sorted(claims - alive):
        yield Finding(
            "wrong", "orphans", f"a claim of {consumer}, which is no server", "please report this as a bug"
        )
    for port in lost:
        yield Finding("wrong", "orphans", f"port {port} belongs to no server", f"openstack port delete {port}")


def _domains(config: Config, servers: set[str]) -> Iterator[Finding]:
    from cumulet.nova.compute.guests import list_servers

    found = list_servers(config)
    for server in sorted(found - servers):
        remedy = "left alone: the database may be the one that is wrong; virsh undefine it by hand"
        yield Finding(
            "wrong", "orphans", f"domain of server {server}, which the database does not know here", remedy
        )
    for server in sorted(servers - found):
        yield Finding("remark", "orphans", f"server {server} has no domain here yet", f"cumulet why {server}")


def _switch_ports(config: Config, ports: set[str]) -> Iterator[Finding]:
    from cumulet.host import openvswitch
    from cumulet.host.ovsdb import Ovsdb

    ovsdb = Ovsdb(openvswitch.database_socket(parts.switch_dirs(config)[1]))
    try:
        rows = [row for bridge in ovsdb.bridges().values() for row in bridge.ports.values()]
    finally:
        ovsdb.close()
    for row in rows:
        port = row.external_ids.get("iface-id")
        if port and port not in ports:
            yield Finding("wrong", "orphans", f"{row.name} on the switch belongs to no port", "it passes no packet")
        if row.error:
            yield Finding("wrong", "network", f"{row.name}: {row.error}", "cumulet logs neutron-openvswitch-agent")
