"""What of a cloud can still be found on this machine: for ``down`` to prove that nothing is, and for ``doctor``."""

import os
from pathlib import Path

from cumulet.core.config import Config
from cumulet.host import netns, openvswitch
from cumulet.host.netlink import Netlink
from cumulet.host.nft import Nft

LINKS = ("cumulet-", "br-int", "br-tun", "br-ex", "br-phy", "tap", "ovs-netdev", "ovs-system")


def leftovers(config: Config) -> list[str]:
    """One line for each process, namespace, link, mount and nftables table; empty when the cloud is down."""
    return [
        *(f"process {pid}: {words}" for pid, words in processes(config)),
        *(f"namespace {name}" for name in namespaces(config)),
        *(f"link {name}" for name in links()),
        *(f"mount {place}" for place in mounts(config)),
        *(f"nftables table {family} {name}" for family, name in tables()),
    ]


def processes(config: Config) -> list[tuple[int, str]]:
    """Processes that hold our directories among their arguments, apart from this one and its parents."""
    marks = (str(config.run).encode() + b"/", str(config.state).encode() + b"/")
    own, here = {os.getpid(), os.getppid()}, os.readlink("/proc/self/ns/pid")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        try:
            if os.readlink(entry / "ns" / "pid") != here:
                continue  # a cloud in a container, or one that a test runs beside this
            words = (entry / "cmdline").read_bytes()
            alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if alive and any(mark in words for mark in marks):
            found.append((int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")[:100]))
    return found


def namespaces(config: Config) -> list[str]:
    """Namespaces named as the agents name theirs."""
    return netns.list_names("qdhcp-") + netns.list_names("qrouter-")


def links() -> list[str]:
    with Netlink() as link:
        return sorted(name for name in link.links() if name.startswith(LINKS))


def mounts(config: Config) -> list[str]:
    marks = (f"{config.run}/", f"{config.state}/")
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(marks)]


def tables() -> list[tuple[str, str]]:
    with Nft() as nft:
        return sorted(table for table in nft.tables() if "cumulet" in table[1])


def datapath() -> str:
    return "kernel" if openvswitch.kernel_datapath(load=False) else "userspace"
