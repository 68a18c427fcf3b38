"""``cumulet doctor``: check the machine and the cloud; every finding comes with a remedy.

Read-only.  Exit code 1 if something is wrong; remarks (what is so, and what follows) do not count.
"""

import argparse
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import sqlalchemy as sa

from cumulet.cli import keeper, leftovers, parts, record, sockets, status, times
from cumulet.cli.database import reading
from cumulet.core import clock
from cumulet.core import config as configuration
from cumulet.core.config import Config
from cumulet.core.errors import ApiError, Retry
from cumulet.core.reconcile import KeyStatus
from cumulet.core.tables import agents
from cumulet.host import libvirtd, openvswitch
from cumulet.host.nft import NftError
from cumulet.host.ovsdb import Ovsdb, OvsdbError
from cumulet.neutron import tables as neutron
from cumulet.nova import tables as nova
from cumulet.placement import tables as placement

GIGABYTE = 1 << 30
COMPUTE, SWITCHING = "nova-compute", "neutron-openvswitch-agent"
WAITING_SECONDS = 300.0
"""After which a key that only waits for somebody else counts as wrong."""
TROUBLE = (ApiError, Retry, OSError, OvsdbError, NftError, openvswitch.OpenvswitchError)
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


Check = Callable[[Config], Iterable[Finding]]


def main(options: argparse.Namespace) -> int:
    status.require_root("doctor", "it looks at bridges, namespaces and the database")
    config = configuration.load(options.config)
    findings = examine(config)
    wrong = sum(finding.level == "wrong" for finding in findings)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(findings), indent=1).decode())
    else:
        for finding in findings:
            print(f"{finding.level:<8}{finding.about:<18}{finding.found}")
            if finding.remedy:
                print(f"{'':<26}→ {finding.remedy}")
        state = "up" if status.running(config) else "down"
        count = {0: "nothing is", 1: "1 thing is"}.get(wrong, f"{wrong} things are")
        print(f"\nThe cloud is {state} on this node; {count} wrong.")
    return 1 if wrong else 0


def examine(config: Config) -> list[Finding]:
    always: tuple[Check, ...] = (_tools, _virtualization, _datapath, _disk, _memory)
    down: tuple[Check, ...] = (_going_on,) if status.living_parts(config) else (_ports, _in_the_way, _left_over)
    up: tuple[Check, ...] = (_services, _agents, _loops, _orphans, _domains, _switch)
    checks = (*always, *(up if status.running(config) else down))
    return [finding for check in checks if _applies(check, config) for finding in _carry_out(check, config)]


def _applies(check: Check, config: Config) -> bool:
    """Whether this node has what the check is about; of several, only controllers have the database."""
    services = {_virtualization: COMPUTE, _domains: COMPUTE, _datapath: SWITCHING, _switch: SWITCHING}
    here = check not in services or services[check] in {service.name for service in config.services}
    return here and (config.controls or check not in (_agents, _orphans, _domains, _switch))


def _carry_out(check: Check, config: Config) -> list[Finding]:
    """What the check finds; that it cannot look is a finding, too."""
    try:
        return list(check(config))
    except TROUBLE as trouble:
        about = check.__name__.strip("_").replace("_", " ")
        return [Finding("wrong", about, f"cannot be looked at: {trouble}", "cumulet where tells what does not run")]


def _tools(config: Config) -> Iterator[Finding]:
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            yield Finding("wrong", "tools", f"{tool} is not installed", f"apt-get install {package}, or cumulet up")


def _virtualization(config: Config) -> Iterator[Finding]:
    from cumulet.host import kvm

    if config.compute.virt_type != "auto":
        yield Finding("ok", "virtualization", f"{config.compute.virt_type}, as configured")
    elif not Path("/dev/kvm").exists():
        remedy = "enable virtualization in the firmware, or nested virtualization in the host"
        yield Finding("remark", "virtualization", "no /dev/kvm: servers are emulated (TCG)", remedy)
    elif kvm.usable():
        yield Finding("ok", "virtualization", "KVM is usable")
    else:
        yield Finding(
            "remark",
            "virtualization",
            "/dev/kvm is there but much slower than emulation: servers are emulated (TCG)",
            'use a machine whose KVM runs on hardware; virt_type = "kvm" in [compute] overrides the probe',
        )


def _datapath(config: Config) -> Iterator[Finding]:
    if leftovers.datapath() == "kernel":
        yield Finding("ok", "datapath", "the kernel has Open vSwitch's datapath")
    else:
        found = "the kernel has no Open vSwitch datapath: packets go through user space, some 300 Mbit/s"
        yield Finding("remark", "datapath", found, "modprobe openvswitch, if the kernel has modules")


def _disk(config: Config) -> Iterator[Finding]:
    seen: set[int] = set()
    for place in (config.state, config.logs):
        existing = next(path for path in (place, *place.parents) if path.exists())
        device = existing.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(existing).free / GIGABYTE
        if free < 2:
            remedy = "free some: servers' disks, images and logs grow there"
            yield Finding("wrong", "disk", f"{free:.1f} GB free in {place}", remedy)
        else:
            yield Finding("ok", "disk", f"{free:.0f} GB free in {place}")


def _memory(config: Config) -> Iterator[Finding]:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) // 1024
    if free < 400:
        yield Finding("wrong", "memory", f"{free} MB available", "a small server needs 300 MB: stop something")
    else:
        yield Finding("ok", "memory", f"{free} MB available")


def _going_on(config: Config) -> Iterator[Finding]:
    found = f"the services are stopped; {', '.join(status.living_parts(config))}, servers and networks go on"
    yield Finding("remark", "services", found, "cumulet up takes them over, cumulet down ends them")


def _ports(config: Config) -> Iterator[Finding]:
    """Ports that somebody else listens on; asked only while the cloud is down."""
    for taken in sockets.taken_ports(config):
        yield Finding("wrong", "ports", taken, "stop that, or change bind or internal_bind in [api]")


def _in_the_way(config: Config) -> Iterator[Finding]:
    for name in sorted(leftovers.present(leftovers.BRIDGES)):
        remedy = "cumulet down takes it away if it is ours; if it is not, this machine's other use of it must end"
        yield Finding("wrong", "bridges", f"there is a link {name}, which the cloud's own switch needs", remedy)


def _left_over(config: Config) -> Iterator[Finding]:
    for thing in leftovers.leftovers(config):
        yield Finding("wrong", "leftovers", thing, "cumulet down takes away what is the cloud's own")


def _services(config: Config) -> Iterator[Finding]:
    for line in status.healths(config):
        log = f"cumulet logs {line.name}"
        if not line.healthy:
            yield Finding("wrong", "services", f"{line.name}: {line.problem}", log)
        elif line.starts > 3:
            found = f"{line.name} was started {line.starts} times, last at {times.at(line.since)}"
            yield Finding("remark", "services", found, f"{log} tells why it ended")
    if not (keeper.SYSTEMD.exists() or record.find_keeper(config)):
        found = "nobody starts the services' parent again if it is killed"
        yield Finding("remark", "services", found, "cumulet down, then cumulet up")


def _agents(config: Config) -> Iterator[Finding]:
    """Who told that it lives and tells it no more; this node's services are asked themselves."""
    oldest = clock.later(-config.agents.down_seconds)
    with reading(config) as tx:
        rows = tx.all(sa.select(agents).where(agents.c.seen_at < oldest, agents.c.host != config.node.name))
    for row in rows:
        found = f"{row.binary} on {row.host} gave its last sign of life at {times.at(row.seen_at)}"
        yield Finding("wrong", "agents", found, f"cumulet where, on {row.host}")


def _loops(config: Config) -> Iterator[Finding]:
    for service, loops in status.loops(config, ()).items():
        for loop in loops:
            if loop.read_failure:
                found = f"{service}/{loop.name} cannot read its intent: {loop.read_failure}"
                yield Finding("wrong", "loops", found, "it goes on by itself when the controller answers again")
            for key, failure in loop.failing.items():
                state = f"{failure.kind} since {times.at(failure.since)}: {failure.reason}"
                found = f"{service}/{loop.name}: {key} {state}"
                yield Finding(_level(failure), "loops", found, f"cumulet why {key}; cumulet logs {service}")


def _level(failure: KeyStatus) -> str:
    """Waiting is normal for a while; what is given up is its owner's fault, who sees it in the API."""
    patient = failure.since > clock.later(-WAITING_SECONDS)
    return "remark" if failure.kind == "terminal" or (failure.kind == "waiting" and patient) else "wrong"


def _orphans(config: Config) -> Iterator[Finding]:
    """Rows that belong to nothing, and namespaces of ours that no row wants."""
    host = config.node.name
    dhcp, routers, owned = neutron.dhcp_bindings, neutron.router_bindings, neutron.ports
    with reading(config) as tx:
        alive = {row.id for row in tx.all(sa.select(nova.servers.c.id).where(nova.servers.c.gone_at.is_(None)))}
        networks = {row.network_id for row in tx.all(sa.select(dhcp.c.network_id).where(dhcp.c.host == host))}
        routed = {row.router_id for row in tx.all(sa.select(routers.c.router_id).where(routers.c.host == host))}
        open_ones = sa.select(nova.migrations.c.uuid).join(nova.servers).where(nova.servers.c.gone_at.is_(None))
        alive |= {row.uuid for row in tx.all(open_ones)}  # a migration holds the claim on the host that is left
        claims = {row.consumer_id for row in tx.all(sa.select(placement.allocations.c.consumer_id))}
        # users may write anything into device_id; server_id is nova's own word
        taken = tx.all(sa.select(owned.c.id, owned.c.server_id).where(owned.c.server_id.is_not(None)))
    named = {f"qdhcp-{n}" for n in networks} | {f"qrouter-{r}" for r in routed}
    for name in sorted(set(leftovers.namespaces(config)) - named):
        remedy = f"left alone, for the database may be what is wrong; ip netns delete {name}"
        yield Finding("wrong", "orphans", f"namespace {name} is ours, and nothing wants it", remedy)
    for consumer in sorted(claims - alive):
        found = f"{consumer} has a claim on this cloud's memory and is no server"
        yield Finding("wrong", "orphans", found, "cumulet logs nova-conductor; it should have been released")
    for row in taken:
        if row.server_id not in alive:
            found = f"port {row.id} is held for server {row.server_id}, which is gone"
            yield Finding("wrong", "orphans", found, f"openstack port delete {row.id}")


def _domains(config: Config) -> Iterator[Finding]:
    from cumulet.nova.compute.guests import list_servers

    hosts = nova.server_hosts.c
    with reading(config) as tx:
        rows = tx.all(sa.select(hosts.server_id, hosts.wanted).where(hosts.host == config.node.name))
    found = list_servers(config)
    for server in sorted(found - {row.server_id for row in rows}):
        remedy = (
            f"left alone, for the database may be what is wrong; virsh -c '{libvirtd.uri(config.run)}' undefine"
        )
        yield Finding("wrong", "orphans", f"domain {server} is ours, and no server of this host", remedy)
    for server in sorted({row.server_id for row in rows if row.wanted == "run"} - found):
        yield Finding("remark", "servers", f"server {server} has no domain here yet", f"cumulet why {server}")


def _switch(config: Config) -> Iterator[Finding]:
    bindings = neutron.port_bindings.c
    with reading(config) as tx:
        rows = tx.all(sa.select(bindings.port_id).where(bindings.host == config.node.name))
    ports = {row.port_id for row in rows}
    with Ovsdb(openvswitch.database_socket(parts.switch_dirs(config)[1]), timeout_seconds=3.0) as ovsdb:
        bridges = ovsdb.bridges()
    for row in (row for bridge in bridges.values() for row in bridge.ports.values()):
        port = row.external_ids.get("iface-id")
        if port and port not in ports:
            wired = "it was wired by another database and goes on" if row.external_ids.get("net-id") else ""
            passes = wired or "it passes no packet"
            remedy = f"{passes}; a server or a namespace that has it is named among the orphans"
            yield Finding("wrong", "orphans", f"{row.name} on the switch belongs to no port", remedy)
        if row.error:
            yield Finding("wrong", "switch", f"{row.name}: {row.error}", "cumulet logs neutron-openvswitch-agent")
