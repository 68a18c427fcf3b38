"""What of a cloud can still be found on this machine: for ``down`` to prove that nothing is, and for ``doctor``.

Only what carries our mark counts: processes that name our directories, namespaces that our agents wrote down,
links that our own switch had, our tables.  Whatever else is on the machine is somebody else's.
"""

import os
from collections.abc import Collection
from pathlib import Path

from cumulet.cli import parts, record
from cumulet.core.config import Config
from cumulet.host import interface, netns, openvswitch, process
from cumulet.host.netlink import Netlink
from cumulet.host.nft import Nft
from cumulet.host.ovsdb import Ovsdb, OvsdbError

BRIDGES = ("br-int", "br-tun", "br-ex", "br-phy")
CABLE = ("cumulet-ext", "cumulet-wire")


def leftovers(config: Config, devices: Collection[str] = CABLE) -> list[str]:
    """One line for each process, namespace, link, mount and nftables table; empty when the cloud is down.

    ``devices``: the links that were ours while the cloud was up (``links``).
    """
    return [
        *(f"process {pid}: {words}" for pid, words in processes(config)),
        *(f"namespace {name}" for name in namespaces(config)),
        *(f"link {name}" for name in sorted(present(devices))),
        *(f"mount {place}" for place in mounts(config)),
        *(f"nftables table {family} {name}" for family, name in tables()),
    ]


def processes(config: Config) -> list[tuple[int, str]]:
    """Services of the last parent, and processes that hold our directories among their arguments.

    Not this process and its parents, nor what runs in another process namespace: that is a cloud in a container,
    or one that a test runs beside this one.
    """
    marks = (str(config.run).encode() + b"/", str(config.state).encode() + b"/")
    own, here = {os.getpid(), os.getppid()}, os.readlink("/proc/self/ns/pid")
    state = record.read_state(config)
    found = [(one.pid, one.name) for one in state.members if not one.part and record.lives(one)] if state else []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        try:
            if os.readlink(entry / "ns" / "pid") != here:
                continue
            words = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if any(mark in words for mark in marks) and process.look(int(entry.name)):
            found.append((int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")[:100]))
    return found


def namespaces(config: Config) -> list[str]:
    """Namespaces that our agents made and wrote down."""
    return [name for name in interface.own_namespaces(config.run, "") if netns.exists(name)]


def links(config: Config) -> set[str]:
    """Devices of this machine that our switch has, and our cable; asked while the switch runs."""
    found = set(CABLE)
    if process.find(str(parts.pid_file(config, "ovsdb-server")), parts.marker(config)):
        try:
            with Ovsdb(openvswitch.database_socket(parts.switch_dirs(config)[1]), timeout_seconds=3.0) as ovsdb:
                for name, bridge in ovsdb.look().bridges.items():
                    if bridge.external_ids.get("owner"):
                        found.add(name)
                    if name == "br-int":
                        found |= {port.name for port in bridge.ports.values() if port.external_ids.get("owner")}
        except OvsdbError:
            found |= set(BRIDGES)
    return found


def present(names: Collection[str]) -> set[str]:
    """Those of these links that exist."""
    with Netlink() as link:
        return set(link.links()) & set(names)


def mounts(config: Config) -> list[str]:
    marks = (f"{config.run}/", f"{config.state}/")
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(marks)]


def tables() -> list[tuple[str, str]]:
    with Nft() as nft:
        return sorted(table for table in nft.tables() if "cumulet" in table[1])


def datapath() -> str:
    return "kernel" if openvswitch.kernel_datapath(load=False) else "userspace"
