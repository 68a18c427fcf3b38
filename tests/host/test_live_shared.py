"""Two real hosts whose servers' disks are on one file system: a guest goes, its disk stays where it is."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from msgspec.structs import replace

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute.tools import run_tool
from cumulet.nova.model import STORE, Domain, ServerIntent
from tests.host.hypervisor_rig import Host, until
from tests.host.live_rig import Elsewhere, LibvirtPair, awaited, running, sent

pytestmark = pytest.mark.host
WRITTEN = 32
"""MiB on the disk."""


@pytest.fixture
def root() -> Iterator[Path]:
    with TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def pair(root: Path, libvirt_hosts: tuple[tuple[Host, Host], str]) -> Iterator[LibvirtPair]:
    configs = [host.config for host in libvirt_hosts[0]]
    before = [(config.node.name, config.compute) for config in configs]
    for config, name in zip(configs, ("h1", "h2"), strict=True):
        config.node.name = name
        config.compute = replace(config.compute, shared_disks=str(root))
    found = LibvirtPair(*libvirt_hosts)
    try:
        with found.reachable():
            yield found
    finally:
        found.close()
        for config, (name, compute) in zip(configs, before, strict=True):
            config.node.name, config.compute = name, compute
            (config.state / "shared-disks").unlink()


def started(pair: LibvirtPair, root: Path) -> tuple[ServerIntent, Path, Path]:
    """A running server with something on its disk; where that is and will be."""
    server = pair.make_server()
    here, there = (root / host / server.id / "disk" for host in ("h1", "h2"))
    pair.source.make_disk(server, {})
    run_tool("qemu-io", "-f", "qcow2", "-c", f"write -P 7 64M {WRITTEN}M", here)
    running(pair, server)
    return server, here, there


def check(disk: Path) -> None:
    """Terminal unless it holds what was written at the start."""
    run_tool("qemu-io", "-f", "qcow2", "-c", f"read -P 7 64M {WRITTEN}M", disk)


def test_a_guest_goes_and_its_disk_has_two_names(pair: LibvirtPair, root: Path) -> None:
    server, here, there = started(pair, root)
    stores = {host.inventory().details[STORE] for host in (pair.source, pair.target)}
    assert len(stores) == 1
    assert "" not in stores
    awaited(pair, server)
    assert not there.samefile(here)
    assert not pair.source.perform(server, pair.verb(9))
    sent(pair, server, pair.verb(9))
    until(lambda: pair.target.look_at(server.id).state == "paused", "all of it")
    assert there.samefile(here)
    pair.target.start(server)
    pair.source.destroy(server)
    assert pair.source.look_at(server.id) == Domain()
    assert not here.parent.exists()
    assert pair.target.look_at(server.id).state == "on"
    until(lambda: pair.target.stop(server), "it heard the power button: it runs on")
    check(there)
    pair.target.destroy(server)
    assert pair.target.look_at(server.id) == Domain()
    assert [path.name for path in root.rglob("*") if server.id in str(path)] == []


def test_one_that_is_broken_off_takes_no_disk_away(pair: LibvirtPair, root: Path) -> None:
    server, here, there = started(pair, root)
    pair.slow(1)
    awaited(pair, server)
    assert not pair.source.perform(server, pair.verb(9))
    until(lambda: pair.target.look_at(server.id).state == "incoming", "the guest on its way")
    assert isinstance(pair.target, Elsewhere)
    pair.target.hypervisor.arrivals.close(server.id)
    with pytest.raises(Terminal):
        sent(pair, server, pair.verb(9))
    pair.letting_in.clear()
    pair.target.destroy(server)
    assert pair.source.look_at(server.id).state == "on"
    assert not there.parent.exists()
    until(lambda: pair.source.stop(server), "it heard the power button: it runs on")
    check(here)


def test_a_dead_hosts_disk_is_inherited_but_not_a_live_ones(pair: LibvirtPair, root: Path) -> None:
    server, here, there = started(pair, root)
    heir = replace(server, heir_of="h1")
    pair.target.make_disk(heir, {})
    pair.target.plug(heir)
    pair.target.define(heir)
    assert there.samefile(here)
    with pytest.raises((Retry, Terminal), match="lock"):
        pair.target.start(heir)
    os.kill(pair.hosts[0].qemu_pid(server.id), signal.SIGKILL)
    pair.target.start(heir)
    assert pair.target.look_at(server.id).state == "on"
    pair.source.destroy(server)
    until(lambda: pair.target.stop(server), "it heard the power button")
    check(there)
