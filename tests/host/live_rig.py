"""Two hosts between which a guest goes as it runs: simulated ones, and two with a libvirtd and a switch each."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from msgspec.structs import replace

from cumulet.host import netns
from cumulet.nova.compute.console import console_app
from cumulet.nova.compute.hypervisor import Hypervisor
from cumulet.nova.compute.libvirt import LibvirtHypervisor
from cumulet.nova.compute.screens import Screens
from cumulet.nova.model import LIVE, Domain, Fetch, ServerIntent, Verb
from cumulet.sim.hypervisor import SimHypervisor
from tests.host.hypervisor_rig import (
    Host,
    LibvirtRig,
    a_host,
    boot_sector,
    make_image,
    make_nic,
    make_server,
    until,
)
from tests.nova.consoles import serving

TICKET = "a ticket"


class Pair(Protocol):
    """``source`` and ``target``; ``letting_in``: the servers whose guests ``target`` takes now."""

    source: Hypervisor
    target: Hypervisor
    letting_in: set[str]
    woken: list[str]

    def make_server(self) -> ServerIntent:
        """One that has just been written down."""

    def verb(self, number: int, **args: Any) -> Verb: ...
    def boots(self, server_id: str) -> int: ...


def incoming(server: ServerIntent) -> ServerIntent:
    """The intent of the host that it goes to."""
    return replace(server, receiving=True, kept=True, ticket=TICKET, fetch=Fetch("h1", "", 0, ""))


def running(pair: Pair, server: ServerIntent) -> None:
    pair.source.make_disk(server, {"a": b"b"})
    for step in (pair.source.plug, pair.source.define, pair.source.start):
        step(server)
    until(lambda: pair.boots(server.id) == 1, "the guest's first words")


def awaited(pair: Pair, server: ServerIntent) -> None:
    pair.target.receive(incoming(server), {"a": b"b"})
    pair.target.plug(incoming(server))
    pair.letting_in.add(server.id)


def sent(pair: Pair, server: ServerIntent, verb: Verb) -> None:
    until(lambda: pair.source.perform(server, verb), "the guest to be sent")


class SimPair:
    def __init__(self) -> None:
        self.woken: list[str] = []
        self.letting_in: set[str] = set()
        hosts: dict[str, SimHypervisor] = {}
        hosts |= {name: SimHypervisor(clock=time.monotonic, others=hosts) for name in ("h1", "h2")}
        self.sims = hosts
        for host in hosts.values():
            host.listen(self.woken.append)
        self.source: Hypervisor = hosts["h1"]
        self.target: Hypervisor = hosts["h2"]
        self.image = make_image(boot_sector(polite=True))[0]

    def make_server(self) -> ServerIntent:
        return make_server(self.image, make_nic())

    def verb(self, number: int, **args: Any) -> Verb:
        return Verb(number, LIVE, {"host": "h2", "address": "", "port": 0, "ticket": TICKET} | args)

    def boots(self, server_id: str) -> int:
        return self.sims["h1"].machines[server_id].starts


class LibvirtPair:
    """The source's namespace is where the caller stands, and where the target's nova-compute can be asked."""

    def __init__(self, hosts: tuple[Host, Host], space: str) -> None:
        self.hosts, self._space = hosts, space
        self.woken: list[str] = []
        self.letting_in: set[str] = set()
        self.rig = LibvirtRig(hosts[0])
        self.source: Hypervisor = self.rig.hypervisor
        self.port = 0
        self.target: Hypervisor = self.make_target()

    def slow(self, mib: int) -> LibvirtHypervisor:
        """Another agent of the source, whose guests take their time on the way."""
        config = self.hosts[0].config
        config.compute = replace(config.compute, live_migration_mib=mib)
        self.rig.restart_agent()
        self.source = self.rig.hypervisor
        assert isinstance(self.source, LibvirtHypervisor)
        return self.source

    def make_target(self) -> "Elsewhere":
        hypervisor = LibvirtHypervisor(
            self.hosts[1].config,
            "h2",
            self.rig.fetch,
            self.rig.store,
            take_file=self._take,
            guest_ticket=lambda server_id: TICKET if server_id in self.letting_in else "",
        )
        hypervisor.listen(self.woken.append)
        found = Elsewhere(hypervisor, self._space)
        until(lambda: _answers(found), "libvirtd")
        return found

    @contextlib.contextmanager
    def reachable(self) -> Iterator[None]:
        assert isinstance(self.target, Elsewhere)
        nobody = Screens(lambda text: "", self.source.open_screen)
        hypervisor = self.target.hypervisor
        with serving(console_app(lambda *_: False, lambda _: b"", nobody, arrivals=hypervisor.arrivals)) as port:
            self.port = port
            yield

    def _take(self, fetch: Fetch, server_id: str, name: str, write: Any) -> bool:
        assert isinstance(self.source, LibvirtHypervisor)
        gift = self.source.find_gift(server_id, name)
        if gift:
            write(gift.read_bytes())
        return gift is not None

    def make_server(self) -> ServerIntent:
        return self.rig.make_server(make_nic())

    def verb(self, number: int, **args: Any) -> Verb:
        there = {"host": "h2", "address": "127.0.0.1", "port": self.port, "ticket": TICKET}
        return Verb(number, LIVE, there | args)

    def boots(self, server_id: str) -> int:
        return self.rig.boots(server_id)

    def close(self) -> None:
        assert isinstance(self.target, Elsewhere)
        for server_id in self.target.look():
            self.target.destroy(replace(make_server(self.rig.polite), id=server_id))
        self.target.hypervisor.close()
        self.rig.sweep()
        self.rig.close()


class Elsewhere:
    """A hypervisor whose every call is made in the network namespace of its host."""

    def __init__(self, hypervisor: LibvirtHypervisor, space: str) -> None:
        self.hypervisor, self._space = hypervisor, space

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, name)

    def _call(self, name: str, *words: Any) -> Any:
        with netns.enter(self._space):
            return getattr(self.hypervisor, name)(*words)


def _answers(hypervisor: Any) -> bool:
    with contextlib.suppress(Exception):
        return isinstance(hypervisor.look(), Mapping)
    return False


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[tuple[Host, Host], str]]:
    """The caller stands in the first one's namespace; the second one's name."""
    with a_host() as first:
        here = netns.open_current()
        with a_host() as second, netns.enter_fd(here):
            yield (first, second), second.space


def whole(domain: Domain) -> tuple[bool, bool, str]:
    return domain.defined, domain.disk, domain.state
