"""How a guest goes from host to host as it runs, whatever the hypervisor."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from cumulet.core.errors import Terminal
from cumulet.nova.model import Domain
from tests.host.hypervisor_rig import Host, until
from tests.host.live_rig import LibvirtPair, Pair, SimPair, awaited, incoming, running, sent


@pytest.fixture(params=["sim", pytest.param("libvirt", marks=pytest.mark.host)])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "sim":
        yield SimPair()
        return
    hosts: tuple[tuple[Host, Host], str] = request.getfixturevalue("libvirt_hosts")
    found = LibvirtPair(*hosts)
    try:
        with found.reachable():
            yield found
    finally:
        found.close()


def test_a_guest_comes_in_standing_still_and_goes_on(pair: Pair) -> None:
    server = pair.make_server()
    running(pair, server)
    before = pair.source.look_at(server.id)
    awaited(pair, server)
    ready = pair.target.look_at(server.id)
    assert (ready.disk, ready.defined, ready.taps) == (True, False, before.taps)
    pair.woken.clear()
    assert not pair.source.perform(server, pair.verb(9))
    assert pair.source.look_at(server.id).state == "on"
    assert pair.source.look_at(server.id).progress is not None
    sent(pair, server, pair.verb(9))
    left = pair.source.look_at(server.id)
    assert (left.defined, left.progress) == (False, None)
    until(lambda: pair.target.look_at(server.id).state == "paused", "all of it")
    assert pair.target.look_at(server.id) == replace(before, state="paused")
    assert pair.target.look()[server.id] == replace(before, state="paused")
    assert pair.source.perform(server, pair.verb(9))
    pair.letting_in.clear()
    for _ in range(2):
        pair.target.start(server)
        assert pair.target.look_at(server.id) == replace(before, state="on")
    pair.source.destroy(server)
    assert pair.source.look_at(server.id) == Domain()
    until(lambda: pair.target.stop(server), "it heard the power button: it runs on")
    pair.target.destroy(server)
    assert pair.target.look_at(server.id) == Domain()


def test_a_paused_one_stays_paused_and_comes_back(pair: Pair) -> None:
    server = pair.make_server()
    running(pair, server)
    pair.source.pause(server)
    awaited(pair, server)
    assert not pair.source.perform(server, pair.verb(9))
    sent(pair, server, pair.verb(9))
    until(lambda: pair.target.look_at(server.id).state == "paused", "all of it")


def test_who_is_called_off_stays(pair: Pair) -> None:
    server = pair.make_server()
    running(pair, server)
    awaited(pair, server)
    assert not pair.source.perform(server, pair.verb(9))
    until(lambda: pair.source.recall(server), "the end of the job")
    with pytest.raises(Terminal):
        sent(pair, server, pair.verb(9, abort=True))
    assert pair.source.look_at(server.id).state == "on"
    assert pair.source.look_at(server.id).progress is None
    pair.target.destroy(incoming(server))
    assert pair.target.look_at(server.id) == Domain()
    awaited(pair, server)
    assert not pair.source.perform(server, pair.verb(10))
    sent(pair, server, pair.verb(10))
    until(lambda: pair.target.look_at(server.id).state == "paused", "all of it, the second time")


def test_what_is_off_is_not_sent(pair: Pair) -> None:
    server = pair.make_server()
    running(pair, server)
    awaited(pair, server)
    until(lambda: pair.source.stop(server), "off")
    with pytest.raises(Terminal):
        pair.source.perform(server, pair.verb(9))
