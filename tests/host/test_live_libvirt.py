"""What breaks a live migration off between two real hosts, and what is left then."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cumulet.core.errors import Retry, Terminal
from cumulet.nova.compute.passages import TICKET as HEADER
from cumulet.nova.compute.passages import WAYS
from cumulet.nova.compute.tools import run_tool
from cumulet.nova.model import Domain, ServerIntent
from tests.host.hypervisor_rig import Host, until
from tests.host.live_rig import TICKET, Elsewhere, LibvirtPair, awaited, incoming, running, sent

pytestmark = pytest.mark.host
SLOW_MIB = 1
LONG, SHORT = 30, 5
"""MiB on its disk: more than it has time for, and as much as goes in seconds."""


@pytest.fixture
def pair(libvirt_hosts: tuple[tuple[Host, Host], str]) -> Iterator[LibvirtPair]:
    found = LibvirtPair(*libvirt_hosts)
    found.slow(SLOW_MIB)
    try:
        with found.reachable():
            yield found
    finally:
        found.close()


def disk(host: Host, server: ServerIntent) -> str:
    return str(host.config.state / "servers" / server.id / "disk")


def on_its_way(pair: LibvirtPair, written: int = LONG) -> ServerIntent:
    """With so many MiB on its disk."""
    server = pair.make_server()
    pair.source.make_disk(server, {})
    run_tool("qemu-io", "-f", "qcow2", "-c", f"write -P 7 64M {written}M", disk(pair.hosts[0], server))
    running(pair, server)
    awaited(pair, server)
    assert not pair.source.perform(server, pair.verb(9))
    until(lambda: state_of(pair.target, server) == "incoming", "the guest on its way")
    assert state_of(pair.source, server) == "on"
    return server


def kill_qemu(host: Host, server: ServerIntent) -> None:
    os.kill(host.qemu_pid(server.id), signal.SIGKILL)


def end_target_agent(pair: LibvirtPair, server: ServerIntent) -> None:
    """What its death does: all that it carries breaks off."""
    assert isinstance(pair.target, Elsewhere)
    pair.target.hypervisor.arrivals.close(server.id)


DEATHS: dict[str, Callable[[LibvirtPair, ServerIntent], None]] = {
    "nova-compute of the destination": end_target_agent,
    "QEMU of the destination": lambda pair, server: kill_qemu(pair.hosts[1], server),
    "libvirtd of the destination": lambda pair, _: pair.hosts[1].kill_libvirtd(),
    "libvirtd of the source": lambda pair, _: pair.hosts[0].kill_libvirtd(),
}


@pytest.mark.parametrize(
    "death",
    [name if name.startswith("nova") else pytest.param(name, marks=pytest.mark.chaos) for name in DEATHS],
)
def test_whoever_dies_the_guest_stays_and_may_be_sent_again(pair: LibvirtPair, death: str) -> None:
    server = on_its_way(pair)
    DEATHS[death](pair, server)
    with pytest.raises(Terminal):
        until(lambda: performed(pair, server, 9), "the end of the job")
    until(lambda: state_of(pair.source, server) == "on", "the guest where it was")
    until(lambda: state_of(pair.target, server) == "off", "the end of what came in")
    pair.slow(0)
    assert not pair.source.perform(server, pair.verb(10))
    sent(pair, server, pair.verb(10))
    until(lambda: state_of(pair.target, server) == "paused", "all of it, the second time")
    pair.target.start(server)
    until(lambda: pair.target.stop(server), "it heard the power button")
    run_tool("qemu-io", "-f", "qcow2", "-c", f"read -P 7 64M {LONG}M", disk(pair.hosts[1], server))


@pytest.mark.chaos
def test_a_guest_that_dies_on_its_way_is_where_it_was(pair: LibvirtPair) -> None:
    server = on_its_way(pair)
    kill_qemu(pair.hosts[0], server)
    with pytest.raises(Terminal):
        until(lambda: performed(pair, server, 9), "the end of the job")
    assert state_of(pair.source, server) == "crashed"
    until(lambda: state_of(pair.target, server) == "off", "the end of what came in")
    pair.source.start(server)
    assert state_of(pair.source, server) == "on"


def test_nobody_is_let_in_without_a_ticket_or_when_it_is_all_over(pair: LibvirtPair) -> None:
    server = pair.make_server()
    running(pair, server)
    with pytest.raises(Retry, match="nobody is let in"):
        pair.source.perform(server, pair.verb(9))
    awaited(pair, server)
    for way, ticket in [*((way, "another ticket") for way in WAYS), ("monitor", TICKET)]:
        url = f"ws://127.0.0.1:{pair.port}/servers/{server.id}/arrival/{way}"
        with pytest.raises(InvalidStatus):
            connect(url, additional_headers={HEADER: ticket}, proxy=None)
    with pytest.raises(Retry, match="nobody is let in"):
        pair.source.perform(server, pair.verb(9, ticket="another ticket"))
    pair.letting_in.clear()
    pair.target.destroy(incoming(server))
    with pytest.raises(Retry, match="nobody is let in"):
        pair.source.perform(server, pair.verb(9))
    assert pair.target.look_at(server.id) == Domain()
    assert state_of(pair.source, server) == "on"


def test_the_end_of_a_move_ends_what_comes_in(pair: LibvirtPair) -> None:
    server = on_its_way(pair)
    pair.letting_in.clear()
    pair.target.destroy(incoming(server))
    assert pair.target.look_at(server.id) == Domain()
    with pytest.raises(Terminal):
        until(lambda: performed(pair, server, 9), "the end of the job")
    assert state_of(pair.source, server) == "on"
    assert pair.target.look_at(server.id) == Domain()


def test_it_is_hurried(pair: LibvirtPair) -> None:
    server = on_its_way(pair, SHORT)
    sent(pair, server, pair.verb(9, force=True))
    until(lambda: state_of(pair.target, server) == "paused", "all of it")


def performed(pair: LibvirtPair, server: ServerIntent, number: int) -> bool:
    """Nothing that libvirtd's death says for a moment counts."""
    try:
        return pair.source.perform(server, pair.verb(number))
    except Retry:
        return False


def state_of(hypervisor: object, server: ServerIntent) -> str:
    try:
        return str(hypervisor.look_at(server.id).state)  # type: ignore[attr-defined]
    except Retry as reason:
        return str(reason)
